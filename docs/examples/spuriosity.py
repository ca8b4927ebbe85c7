"""No group labels: what a classifier leans on, how badly, and the fix; on images with planted cues."""

import embedx

manifest = embedx.prepare("planted")
embedx.extract_features(manifest, ["tiny:narrow", "tiny:broad"])
analysis = embedx.open_analysis(manifest, "tiny:broad")

embedx.discover(analysis)  # the features that add most to the logit of each class
embedx.annotate(analysis, attributes=["mark", "ground", "companion"])  # or a person says which are spurious
ranking = embedx.rank(analysis)
print(f"{(ranking.positions >= 0).sum()} images ranked by how strongly they show the cues of their class")

for gaps in embedx.gap(analysis, ["tiny:narrow", "tiny:broad"]).gaps:
    mean = gaps.mean.gap
    print(f"{gaps.model}: {mean.value:+.1%} ({mean.low:+.1%} to {mean.high:+.1%}) where the cues are")

for tuned in embedx.tune(analysis):
    before, after = (result.gap.value for result in tuned.tuning.results[:2])
    print(f"{tuned.tuning.model}: {before.value:+.1%} before, {after.value:+.1%} after tuning; {tuned.file.name}")
