"""Images named LABEL_PLACE_NUMBER.png; of four, two are for training, one for validation, one for test."""

from embedx.data.manifest import build


def read(root):
    files = sorted(path.name for path in root.glob("*_*_*.png"))
    labels, places, numbers = zip(*(file.removesuffix(".png").split("_") for file in files), strict=True)
    return build(
        "mine",
        {
            "id": files,
            "label": labels,
            "place": places,
            "split": [("train", "train", "val", "test")[int(number) // 4 % 4] for number in numbers],
        },
        root=str(root.resolve()),
        licence="our own",
    )
