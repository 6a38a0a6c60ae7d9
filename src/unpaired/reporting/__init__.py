"""Tables, figures and pages about runs, from the records in their folders."""
