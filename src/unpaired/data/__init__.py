"""Images in, tensors out: reading, folders, training crops, and the reproducible stream of unpaired samples."""

from unpaired.data.dataset import DatasetConfig
from unpaired.data.domains import DomainFiles, MultiDomainStream, find_domains
from unpaired.data.embedded import EMBEDDED, EmbeddedDataset, embedded_dataset
from unpaired.data.folders import UnpairedFiles, find_test_images, find_training_images, list_images, pair_by_name
from unpaired.data.images import IMAGE_SUFFIXES, MAX_IMAGE_PIXELS, image_to_tensor, read_image, tensor_to_image, to_mode
from unpaired.data.samples import SampleStream
from unpaired.data.stream import Batch, UnpairedStream, batches
from unpaired.data.transforms import DataConfig, load_for_protocol, load_resized, read_for_protocol

__all__ = [
    "EMBEDDED",
    "IMAGE_SUFFIXES",
    "MAX_IMAGE_PIXELS",
    "Batch",
    "DataConfig",
    "DatasetConfig",
    "DomainFiles",
    "EmbeddedDataset",
    "MultiDomainStream",
    "SampleStream",
    "UnpairedFiles",
    "UnpairedStream",
    "batches",
    "embedded_dataset",
    "find_domains",
    "find_test_images",
    "find_training_images",
    "image_to_tensor",
    "list_images",
    "load_for_protocol",
    "load_resized",
    "pair_by_name",
    "read_for_protocol",
    "read_image",
    "tensor_to_image",
    "to_mode",
]
