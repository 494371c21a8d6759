from tests.test_devices import *
import pytest, traceback
@pytest.mark.parametrize("which", [0,1])
def test_ft(learners, which):
    learn = learners[which]
    if which==0: learn.loss_func = CrossEntropyLossFlat()
    learn.freeze()
    try:
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    except Exception: traceback.print_exc(); raise
