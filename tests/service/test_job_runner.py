"Services that share a queue: here one in a folder, looked at again and again as one in a database is."
import sys
import time

import pytest

pytest.importorskip("fastapi", reason="the service is not installed")

from image_similarity.service import job_runner
from image_similarity.service.job_runner import JobRunner
from image_similarity.service.jobs import Jobs, new_id


class Shared(Jobs):
    poll = .05

    def holds(self, id): return self[id].state == "running"


def test_a_job_that_another_service_cancels_holds_up_no_other(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(job_runner, "_COMMAND", [sys.executable, "-c", "import time; time.sleep(600)"])
    jobs = Shared(tmp_path / ".service" / "jobs")
    one, other = JobRunner(tmp_path, jobs), JobRunner(tmp_path, jobs)
    first, second = (jobs.add(new_id(), "pets", "index").id for _ in range(2))
    def until_runs(id):
        end = time.monotonic() + 60
        while time.monotonic() < end and (one._running or [None])[0] != id: time.sleep(.01)
        assert one._running and one._running[0] == id
    one.start()
    until_runs(first)
    assert other.cancel(first).state == "cancelled"  # and its folder, log and all, is gone
    until_runs(second)
    one.stop()
    assert (caplog.text, jobs[first].state, jobs[first].message, jobs[second].state) == ("", "cancelled", None, "queued")
    assert [p.name for p in jobs.folder.iterdir() if p.is_dir()] == [second]
