"Looking at pictures on a Ray cluster of two nodes, one of which dies. Needs the extra `[cluster]`."
import threading
import time

import numpy as np
import pytest

from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.encoder import as_gallery_encoder
from image_similarity.gallery.gallery import Gallery
from small_gallery import paint

pytestmark = pytest.mark.soak
ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_cluster_sees_what_one_machine_sees_also_when_a_node_dies(cluster, tmp_path):
    from image_similarity.gallery.cluster import ClusterEncoder
    files = [paint(tmp_path / "photos" / f"cat_{i}.png", i) for i in range(300)]
    files[7].write_text("no picture")
    encoder = as_gallery_encoder(create_encoder(size=64))
    alone = Gallery(tmp_path / "alone", encoder)
    one = alone.add(files, "name", progress=False)
    spread = ClusterEncoder(encoder, cluster.address)
    there = Gallery(tmp_path / "there", spread)
    assert len(spread._lookers()) == 2

    def fall():  # in the middle of it
        while len(there) < 100: time.sleep(.02)
        cluster.remove_node(cluster.second, allow_graceful=False)
    falling = threading.Thread(target=fall)
    falling.start()
    added = there.add(files, "name", progress=False)
    falling.join()
    assert (added.new, len(added.bad)) == (one.new, len(one.bad)) == (299, 1) and added.bad[0].path == files[7]
    assert there.files == alone.files and np.abs(there.pooled - alone.pooled).max() < 1e-4
    assert Gallery(tmp_path / "there").encoder.fingerprint == encoder.fingerprint  # and opens without a cluster
    spread.close()


def test_no_cluster_is_told_in_one_line(monkeypatch):
    from image_similarity.gallery.cluster import ClusterEncoder
    encoder = as_gallery_encoder(create_encoder(size=64))
    with pytest.raises(ValueError, match="Ray Client's way in"): ClusterEncoder(encoder, "ray://127.0.0.1:1")
