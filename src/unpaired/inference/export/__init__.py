"""Generators as single files that run without this package: ONNX, and programs of ``torch.export``."""

from unpaired.inference.export.exported import FileFormat, Precision, Target
from unpaired.inference.export.onnx_generator import OnnxGenerator
from unpaired.inference.export.write import Exported, write_generator

__all__ = ["Exported", "FileFormat", "OnnxGenerator", "Precision", "Target", "write_generator"]
