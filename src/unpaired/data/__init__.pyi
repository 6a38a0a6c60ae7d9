from .channels import average_copies as average_copies
from .channels import repeat_channels as repeat_channels
from .dataset import DatasetConfig as DatasetConfig
from .domains import DomainFiles as DomainFiles
from .domains import MultiDomainStream as MultiDomainStream
from .domains import find_domains as find_domains
from .embedded import EMBEDDED as EMBEDDED
from .embedded import EmbeddedDataset as EmbeddedDataset
from .embedded import embedded_dataset as embedded_dataset
from .folders import UnpairedFiles as UnpairedFiles
from .folders import list_images as list_images
from .folders import pair_by_name as pair_by_name
from .images import (
    image_to_tensor as image_to_tensor,
)
from .images import (
    read_image as read_image,
)
from .images import (
    read_image_of as read_image_of,
)
from .images import (
    tensor_to_image as tensor_to_image,
)
from .inventory import (
    changes as changes,
)
from .inventory import (
    inventory as inventory,
)
from .inventory import (
    inventory_json as inventory_json,
)
from .inventory import (
    look_over as look_over,
)
from .inventory import (
    names_digest as names_digest,
)
from .inventory import (
    state_digest as state_digest,
)
from .mapping import BYTES as BYTES
from .mapping import ValueMapping as ValueMapping
from .pixels import (
    Picture as Picture,
)
from .pixels import (
    PixelFormat as PixelFormat,
)
from .pixels import (
    read_picture as read_picture,
)
from .pixels import (
    read_values as read_values,
)
from .pixels import (
    tensor_of as tensor_of,
)
from .places import find_test_images as find_test_images
from .places import find_training_images as find_training_images
from .preview import pictures as pictures
from .preview import preview_note as preview_note
from .remarks import Remarks as Remarks
from .remarks import listing_of as listing_of
from .resizing import resize_values as resize_values
from .samples import SampleStream as SampleStream
from .samples import decay_turns as decay_turns
from .settings import (
    DataConfig as DataConfig,
)
from .settings import (
    Formats as Formats,
)
from .settings import (
    in_todays_words as in_todays_words,
)
from .settings import (
    of_an_earlier_version as of_an_earlier_version,
)
from .sizes import (
    MAX_IMAGE_PIXELS as MAX_IMAGE_PIXELS,
)
from .sizes import (
    Size as Size,
)
from .sizes import (
    as_size as as_size,
)
from .sizes import (
    height_width as height_width,
)
from .sizes import (
    shorter_side as shorter_side,
)
from .sizes import (
    size_words as size_words,
)
from .stored import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from .stored import Attached as Attached
from .stream import Batch as Batch
from .stream import UnpairedStream as UnpairedStream
from .stream import batches as batches
from .transforms import (
    load_examples as load_examples,
)
from .transforms import (
    load_for_protocol as load_for_protocol,
)
from .transforms import (
    load_resized as load_resized,
)
from .writing import (
    can_hold as can_hold,
)
from .writing import (
    encode as encode,
)
from .writing import (
    left_behind as left_behind,
)
from .writing import (
    no_data_value as no_data_value,
)
from .writing import (
    with_no_data as with_no_data,
)
