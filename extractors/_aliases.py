"""Short names of well-known backbones, with their facts: `-b swag-vit-h14` means `-b swag:vit-h14-linear`.

SWAG's names without `-e2e` are the frozen trunks; CLIP's up to `clip-vit-l14-336` are OpenAI's, the larger ones
LAION's; `resnet50` is the classic of torchvision, `IMAGENET1K_V1`. Nothing is imported here, so the list is at hand at
once; a test holds every number against the library that builds the network.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """What a short name stands for.

    spec         `FAMILY:MODEL`
    dim          features per row
    parameters   of the network that computes them: without classifier, projection and text tower
    pixels       height and width of its input
    licence      of the weights, as their family records it
    download_mb  about: torchvision's figure for its own files; for others 4 bytes per parameter of the whole model, of
                 the robust networks twice that, as an optimiser's state lies beside them
    """

    spec: str
    dim: int
    parameters: int
    pixels: int
    licence: str
    download_mb: int


ALIASES = {
    "swag-vit-b16": Alias("swag:vit-b16-linear", 768, 85_798_656, 224, "CC-BY-NC-4.0", 346),
    "swag-vit-b16-e2e": Alias("swag:vit-b16-e2e", 768, 86_090_496, 384, "CC-BY-NC-4.0", 347),
    "swag-vit-l16": Alias("swag:vit-l16-linear", 1024, 303_301_632, 224, "CC-BY-NC-4.0", 1217),
    "swag-vit-l16-e2e": Alias("swag:vit-l16-e2e", 1024, 304_149_504, 512, "CC-BY-NC-4.0", 1221),
    "swag-vit-h14": Alias("swag:vit-h14-linear", 1280, 630_764_800, 224, "CC-BY-NC-4.0", 2528),
    "swag-vit-h14-e2e": Alias("swag:vit-h14-e2e", 1280, 632_189_440, 518, "CC-BY-NC-4.0", 2534),
    "swag-regnety-16gf": Alias("swag:regnety-16gf-linear", 3024, 80_565_140, 224, "CC-BY-NC-4.0", 335),
    "swag-regnety-16gf-e2e": Alias("swag:regnety-16gf-e2e", 3024, 80_565_140, 384, "CC-BY-NC-4.0", 335),
    "swag-regnety-32gf": Alias("swag:regnety-32gf-linear", 3712, 141_333_770, 224, "CC-BY-NC-4.0", 581),
    "swag-regnety-32gf-e2e": Alias("swag:regnety-32gf-e2e", 3712, 141_333_770, 384, "CC-BY-NC-4.0", 581),
    "swag-regnety-128gf": Alias("swag:regnety-128gf-linear", 7392, 637_419_894, 224, "CC-BY-NC-4.0", 2581),
    "swag-regnety-128gf-e2e": Alias("swag:regnety-128gf-e2e", 7392, 637_419_894, 384, "CC-BY-NC-4.0", 2581),
    "clip-rn50": Alias("clip:RN50-quickgelu/openai", 2048, 36_218_720, 224, "MIT", 408),
    "clip-vit-b32": Alias("clip:ViT-B-32-quickgelu/openai", 768, 87_456_000, 224, "MIT", 605),
    "clip-vit-b16": Alias("clip:ViT-B-16-quickgelu/openai", 768, 85_799_424, 224, "MIT", 598),
    "clip-vit-l14": Alias("clip:ViT-L-14-quickgelu/openai", 1024, 303_179_776, 224, "MIT", 1710),
    "clip-vit-l14-336": Alias("clip:ViT-L-14-336-quickgelu/openai", 1024, 303_507_456, 336, "MIT", 1712),
    "clip-vit-h14": Alias("clip:ViT-H-14/laion2b_s32b_b79k", 1280, 630_766_080, 224, "MIT", 3944),
    "clip-vit-g14": Alias("clip:ViT-g-14/laion2b_s34b_b88k", 1408, 1_011_203_840, 224, "MIT", 5467),
    "clip-vit-bigg14": Alias("clip:ViT-bigG-14/laion2b_s39b_b160k", 1664, 1_842_777_344, 224, "MIT", 10158),
    "siglip-vit-b16": Alias("clip:ViT-B-16-SigLIP/webli", 768, 92_884_224, 224, "Apache-2.0", 813),
    "siglip-so400m-384": Alias("clip:ViT-SO400M-14-SigLIP-384/webli", 1152, 428_225_600, 384, "Apache-2.0", 3512),
    "siglip2-vit-b16": Alias("clip:ViT-B-16-SigLIP2/webli", 768, 92_884_224, 224, "Apache-2.0", 1501),
    "siglip2-so400m": Alias("clip:ViT-SO400M-14-SigLIP2/webli", 1152, 427_680_704, 224, "Apache-2.0", 4542),
    "resnet18": Alias("torchvision:resnet18/IMAGENET1K_V1", 512, 11_176_512, 224, "BSD-3-Clause", 47),
    "resnet50": Alias("torchvision:resnet50/IMAGENET1K_V1", 2048, 23_508_032, 224, "BSD-3-Clause", 103),
    "resnet101": Alias("torchvision:resnet101/IMAGENET1K_V1", 2048, 42_500_160, 224, "BSD-3-Clause", 179),
    "convnext-base": Alias("torchvision:convnext_base/IMAGENET1K_V1", 1024, 87_566_464, 224, "BSD-3-Clause", 354),
    "vit-b16-in1k": Alias("torchvision:vit_b_16/IMAGENET1K_V1", 768, 85_798_656, 224, "BSD-3-Clause", 346),
    "robust-resnet50": Alias("robust:madry-l2-eps3", 2048, 23_508_032, 224, "MIT", 204),
    "robust-resnet50-salman": Alias("robust:salman-l2-eps3", 2048, 23_508_032, 224, "MIT", 204),
    "efficientnet-lite0": Alias("lite:0", 1280, 3_371_008, 224, "Apache-2.0", 19),
    "efficientnet-lite1": Alias("lite:1", 1280, 4_135_680, 240, "Apache-2.0", 22),
    "efficientnet-lite2": Alias("lite:2", 1280, 4_811_072, 260, "Apache-2.0", 24),
    "convnext-base-in22k": Alias("timm:convnext_base.fb_in22k", 1024, 87_566_464, 224, "apache-2.0", 440),
    "convnext-large-in22k": Alias("timm:convnext_large.fb_in22k", 1536, 196_230_336, 224, "apache-2.0", 919),
    "vit-b16-in21k": Alias("timm:vit_base_patch16_224.augreg_in21k", 768, 85_798_656, 224, "apache-2.0", 410),
    "vit-l16-in21k": Alias("timm:vit_large_patch16_224.augreg_in21k", 1024, 303_301_632, 224, "apache-2.0", 1303),
    "dino-vit-b16": Alias("timm:vit_base_patch16_224.dino", 768, 85_798_656, 224, "apache-2.0", 343),
    "mae-vit-b16": Alias("timm:vit_base_patch16_224.mae", 768, 85_798_656, 224, "cc-by-nc-4.0", 343),
    "dinov2-vit-s14": Alias("dinov2:vit-s14", 384, 21_628_800, 224, "apache-2.0", 88),
    "dinov2-vit-s14-reg": Alias("dinov2:vit-s14-reg", 384, 21_629_952, 224, "apache-2.0", 88),
    "dinov2-vit-b14": Alias("dinov2:vit-b14", 768, 85_724_928, 224, "apache-2.0", 346),
    "dinov2-vit-b14-reg": Alias("dinov2:vit-b14-reg", 768, 85_727_232, 224, "apache-2.0", 346),
    "dinov2-vit-l14": Alias("dinov2:vit-l14", 1024, 303_227_904, 224, "apache-2.0", 1217),
    "dinov2-vit-l14-reg": Alias("dinov2:vit-l14-reg", 1024, 303_230_976, 224, "apache-2.0", 1217),
    "dinov2-vit-g14": Alias("dinov2:vit-g14", 1536, 1_134_769_664, 224, "apache-2.0", 4546),
    "dinov2-vit-g14-reg": Alias("dinov2:vit-g14-reg", 1536, 1_134_774_272, 224, "apache-2.0", 4546),
    "dinov3-vit-s16": Alias("dinov3:vit-s16", 384, 21_586_944, 256, "dinov3-license", 86),
    "dinov3-vit-b16": Alias("dinov3:vit-b16", 768, 85_641_216, 256, "dinov3-license", 343),
    "dinov3-vit-l16": Alias("dinov3:vit-l16", 1024, 303_079_424, 256, "dinov3-license", 1212),
    "dinov3-vit-h16plus": Alias("dinov3:vit-h16plus", 1280, 840_509_440, 256, "dinov3-license", 3362),
    "dinov3-convnext-b": Alias("dinov3:convnext-b", 1024, 87_566_464, 224, "dinov3-license", 350),
}
