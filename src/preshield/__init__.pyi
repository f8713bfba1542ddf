from .catalogue import list_defences as list_defences
from .chain import Chain as Chain
from .defences.blur_net import BlurNet as BlurNet
from .defences.feature_squeezing import FeatureSqueezing as FeatureSqueezing
from .defences.gaussian_augmentation import GaussianAugmentation as GaussianAugmentation
from .defences.gaussian_blur import GaussianBlur as GaussianBlur
from .defences.jpeg_compression import JpegCompression as JpegCompression
from .defences.label_smoothing import LabelSmoothing as LabelSmoothing
from .defences.mp3_compression import Mp3Compression as Mp3Compression
from .defences.pixel_defend import PixelDefend as PixelDefend
from .defences.pixel_deflection import PixelDeflection as PixelDeflection
from .defences.resample import Resample as Resample
from .defences.spatial_smoothing import SpatialSmoothing as SpatialSmoothing
from .defences.thermometer_encoding import ThermometerEncoding as ThermometerEncoding
from .defences.total_var_min import TotalVarMin as TotalVarMin
from .defences.video_compression import VideoCompression as VideoCompression
from .evaluation.curves import curve as curve
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.report import RobustnessReport as RobustnessReport
from .evaluation.sweep import ablate as ablate
from .evaluation.sweep import sweep as sweep
from .majority_vote import MajorityVote as MajorityVote
from .neural.cam import CAM as CAM
from .neural.pixel_cnn import PixelCNN as PixelCNN
from .neural.robust_activation_map import RobustActivationMap as RobustActivationMap
from .preprocessor import Preprocessor as Preprocessor

__version__: str
