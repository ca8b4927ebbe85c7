"""ResNet18 with weights of our own; the feature is the pooled last map."""

from embedx.extractors import Backbone, Geometry, Official, fill, fingerprint, freeze, read_weights


def models():
    return ("resnet18",)


def load(model, weights=None):
    import torch
    import torchvision

    if model not in models():
        raise LookupError(f"my_backbone has no model {model!r}; it has {', '.join(models())}")
    if weights is None:
        raise ValueError("my_backbone comes without weights; give the file with --weights")
    state = read_weights(weights)  # tensors only: nothing that a file holds is executed
    network = torchvision.models.resnet18(num_classes=len(state.get("fc.bias", range(1000))))
    fill(network, state, f"{weights.name} as my_backbone:{model}")  # refuses names, shapes, types that do not fit
    freeze(network)  # eval mode, no gradients
    digest = fingerprint(network)  # a cache remembers it, and refuses features by other weights
    classifier = network.fc.weight.numpy().copy(), network.fc.bias.numpy().copy()
    network.fc = freeze(torch.nn.Identity())
    return Backbone(
        spec=f"my_backbone:{model}",
        model="torchvision resnet18",
        dim=512,
        reader=Geometry(size=(224, 224), resize=256, interpolation="bilinear"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        module=network,
        weights=digest,
        feature="pooled last map",
        libraries={"torchvision": torchvision.__version__},
        licence="our own",
        head=classifier,
    )


def official(model, weights=None):
    """torchvision's own pipeline and network, which `embedx verify` compares with."""
    import torch
    import torchvision
    from torchvision.models import ResNet18_Weights

    state = read_weights(weights)
    network = torchvision.models.resnet18(num_classes=len(state["fc.bias"])).eval()
    network.load_state_dict(state)
    network.fc = torch.nn.Identity()
    return Official(f"torchvision {torchvision.__version__}", ResNet18_Weights.IMAGENET1K_V1.transforms(), network)
