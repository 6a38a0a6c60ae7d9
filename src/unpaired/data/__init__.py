"""Images in, tensors out: reading, folders, training crops, and the reproducible stream of unpaired samples."""

from unpaired.data.channels import average_copies, repeat_channels
from unpaired.data.dataset import DatasetConfig
from unpaired.data.domains import DomainFiles, MultiDomainStream, find_domains
from unpaired.data.embedded import EMBEDDED, EmbeddedDataset, embedded_dataset
from unpaired.data.folders import UnpairedFiles, list_images, pair_by_name
from unpaired.data.images import image_to_tensor, read_image, read_image_of, tensor_to_image
from unpaired.data.inventory import changes, inventory, inventory_json, names_digest, state_digest, unreadable
from unpaired.data.mapping import BYTES, ValueMapping
from unpaired.data.pixels import Picture, PixelFormat, read_picture, read_values, tensor_of
from unpaired.data.places import find_test_images, find_training_images
from unpaired.data.preview import pictures, preview_note
from unpaired.data.remarks import Remarks, listing_of
from unpaired.data.resizing import resize_values
from unpaired.data.samples import SampleStream, decay_turns
from unpaired.data.settings import DataConfig, Formats, in_todays_words, of_an_earlier_version
from unpaired.data.sizes import Size, as_size, height_width, shorter_side, size_words
from unpaired.data.stored import IMAGE_SUFFIXES, MAX_IMAGE_PIXELS, Attached
from unpaired.data.stream import Batch, UnpairedStream, batches
from unpaired.data.transforms import load_examples, load_for_protocol, load_resized, read_for_protocol
from unpaired.data.writing import can_hold, encode, left_behind, no_data_value, with_no_data

__all__ = [
    "BYTES",
    "EMBEDDED",
    "IMAGE_SUFFIXES",
    "MAX_IMAGE_PIXELS",
    "Attached",
    "Batch",
    "DataConfig",
    "DatasetConfig",
    "DomainFiles",
    "EmbeddedDataset",
    "Formats",
    "MultiDomainStream",
    "Picture",
    "PixelFormat",
    "Remarks",
    "SampleStream",
    "Size",
    "UnpairedFiles",
    "UnpairedStream",
    "ValueMapping",
    "as_size",
    "average_copies",
    "batches",
    "can_hold",
    "changes",
    "decay_turns",
    "embedded_dataset",
    "encode",
    "find_domains",
    "find_test_images",
    "find_training_images",
    "height_width",
    "image_to_tensor",
    "in_todays_words",
    "inventory",
    "inventory_json",
    "left_behind",
    "list_images",
    "listing_of",
    "load_examples",
    "load_for_protocol",
    "load_resized",
    "names_digest",
    "no_data_value",
    "of_an_earlier_version",
    "pair_by_name",
    "pictures",
    "preview_note",
    "read_for_protocol",
    "read_image",
    "read_image_of",
    "read_picture",
    "read_values",
    "repeat_channels",
    "resize_values",
    "shorter_side",
    "size_words",
    "state_digest",
    "tensor_of",
    "tensor_to_image",
    "unreadable",
    "with_no_data",
]
