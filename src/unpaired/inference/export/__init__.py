"""Generators as single files that run without this package: ONNX, and programs of ``torch.export``.

``exported.py`` says what is exported and checks what was written, ``onnx_file.py`` and ``torch_file.py`` write,
``onnx_generator.py`` serves an ONNX file in the place of a method. Nothing here is needed to train.
"""

from unpaired.inference.export.exported import Exported, FileFormat, Precision, Target
from unpaired.inference.export.onnx_generator import OnnxGenerator
from unpaired.inference.export.write import write_generator

__all__ = ["Exported", "FileFormat", "OnnxGenerator", "Precision", "Target", "write_generator"]
