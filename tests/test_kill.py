"""An extraction that is killed again and again ends with the bytes of one that was left in peace."""

import os
import random
import shutil
import subprocess

import pytest
from killing import command, features, merged, run_and_kill, shards, write_images

KILLS = int(os.environ.get("EMBEDX_KILLS", "4"))
IMAGES = 300


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_kills_change_no_byte(tmp_path):
    """Kills at random moments, the merge among them; what a run finished before its kill is never written again."""
    pets = write_images(tmp_path / "pets", IMAGES)
    calm, cache = tmp_path / "calm", tmp_path / "cache"
    options = ("--workers", "1", "--shard-rows", "16")
    subprocess.run(command(pets, calm, *options), check=True, capture_output=True)
    expected = features(calm)
    line, draw = command(pets, cache, *options), random.Random(0)
    kills = kept = 0
    while kills < KILLS:
        had = shards(cache)
        if not run_and_kill(line, cache, draw.randint(0, 12), draw):
            assert features(cache) == expected
            shutil.rmtree(cache)
            continue
        kills += 1
        now, done = shards(cache), merged(cache)
        lost = {key for key in had if now.get(key) != had[key] and key[0] not in done}
        assert not lost, f"finished shards were written again: {lost}"
        kept += len(now)
    had = shards(cache)
    finished = subprocess.run(line, check=True, capture_output=True, text=True)
    for said in finished.stdout.splitlines():  # PATH: 44 of 300 rows extracted
        mine = [shard for name, shard in had if name in said]
        if mine and "rows extracted" in said:
            count = int(said.rpartition(": ")[2].split()[0])
            assert count == IMAGES - sum(map(rows, mine)), "no more was done than was lacking"
    assert features(cache) == expected
    assert not list(cache.glob("pets/*.shards")), "the merge takes the shards away"
    assert kept, "no kill fell where shards were on disk; the test did not test what it says"


def rows(shard):
    start, stop = shard.removesuffix(".h5").split("-")
    return int(stop) - int(start)
