import numpy as np

from embedx.statistics import Sample

for right in ([0, 0, 100, 100], [100, 100, 100, 100], [95, 94, 97, 93]):
    hits = np.concatenate([np.arange(100) < k for k in right])
    sample = Sample(hits, np.repeat(np.arange(4), 100))
    found = sample.proportion()
    print(f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f}), as {sample.rows():.1f} rows")
