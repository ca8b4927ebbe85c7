"""Is a good embedding enough? The demo's images, two backbones, two heads, a verdict for each backbone."""

import embedx

manifest = embedx.prepare("demo")
embedx.extract_features(manifest, ["tiny:untrained", "tiny:broad"])
runs = embedx.compare(manifest, heads=["plain", "group-balanced"])

for run in runs:
    worst = run.metrics.worst_group
    print(f"{run.backbone:15} {run.head:15} {worst.value:6.1%} ({worst.low:.1%} to {worst.high:.1%})")

for verdict in embedx.verdicts(runs):
    gained = verdict.difference
    print(f"{verdict.backbone}: the plain head {verdict.verdict}; {verdict.rival} gains {gained.value:+.1%}")
