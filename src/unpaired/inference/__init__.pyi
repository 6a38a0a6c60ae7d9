from .loading import Origin as Origin
from .precision import InferencePrecision as InferencePrecision
from .significance import Significance as Significance
from .translator import Translator as Translator
