"""Extraction: one pass over the images, any number of frozen backbones, one feature cache each."""

from embedx.extract.backbones import load_backbone as load_backbone
from embedx.extract.engine import extract as extract
from embedx.extract.merge import Extraction as Extraction
from embedx.extract.on_ray import extract_on_ray as extract_on_ray
from embedx.extract.plan import Settings as Settings
from embedx.extract.request import ExtractionSettings as ExtractionSettings
from embedx.extract.request import extract_features as extract_features
