"""resnet18.safetensors: a network without training stands in for the one that you trained."""

import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

torch.manual_seed(0)
save_file(resnet18(num_classes=2).state_dict(), "resnet18.safetensors")
