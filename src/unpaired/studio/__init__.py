"""A page in the browser (Gradio): translate pictures with trained runs, and watch a training."""
