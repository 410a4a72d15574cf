"""The tap: what layers return, from every kind of model that people tap."""

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdutils.course import models
from kdutils.losses import Regressor, at_loss, hint_loss
from kdutils.taps import FeatureTap, _in_batch_order


class Block(nn.Module):
    """A residual block that writes into its activations: in-place ReLU after `norm`, then `+=`."""

    def __init__(self, inplace):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.inplace = inplace

    def forward(self, x):
        out = self.last(self.relu(self.norm(self.conv(x))))
        if self.inplace:
            out += x
            return F.relu_(out)
        return F.relu(out + x)


def network(inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), Block(inplace), nn.Flatten(), nn.Linear(2 * 6 * 6, 3))


IMAGES = facts.random_tensor(4, 1, 8, 8, dtype=torch.float32)


def num_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_tap_records_what_layers_return():
    model = network()
    with FeatureTap(model, {"first": "0", "norm": "1.norm", "logits": ""}) as tap:
        logits = model(IMAGES)
        torch.testing.assert_close(tap["first"], model[0](IMAGES))
    assert tap["norm"].shape == (4, 2, 6, 6)
    torch.testing.assert_close(tap["logits"], logits)


def test_tap_does_not_see_what_later_layers_overwrite():
    """Values and gradients are those of the network that writes nothing in place."""
    layers = {"norm": "1.norm", "last": "1.last", "block": "1"}
    results = {}
    for inplace in (False, True):
        model = network(inplace)
        with FeatureTap(model, layers) as tap:
            logits = model(IMAGES)
        loss = logits.pow(2).mean() + sum(tap[name].pow(3).mean() for name in layers)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        results[inplace] = [tap[name] for name in layers], gradients
    assert (results[True][0][0] < 0).any() and (results[True][0][1] < 0).any()
    torch.testing.assert_close(results[True], results[False])


def test_gradient_flows_through_the_tap():
    model = network()
    with FeatureTap(model, {"norm": "1.norm"}) as tap:
        model(IMAGES)
        tap["norm"].pow(2).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0 and model[3].weight.grad is None


def test_tap_gives_the_last_forward():
    model = network().eval()
    with FeatureTap(model, {"first": "0"}) as tap:
        model(IMAGES)
        model(IMAGES[:2] + 1)
        torch.testing.assert_close(tap["first"], model[0](IMAGES[:2] + 1))


def test_tap_removes_its_hooks():
    model = network()
    tap = FeatureTap(model, {"first": "0", "norm": "1.norm"})
    assert num_hooks(model) == 0
    for _ in range(2):
        with tap:
            assert num_hooks(model) == 3
        assert num_hooks(model) == 0
    with pytest.raises(ZeroDivisionError), tap:
        1 / 0  # noqa: B018
    assert num_hooks(model) == 0
    with pytest.raises(RuntimeError), tap:
        model(torch.zeros(1, 5, 8, 8))  # wrong channels: the forward pass itself breaks
    assert num_hooks(model) == 0


def test_tap_names_the_nearest_layer():
    model = models.small_cnn()
    for wrong, nearest in {
        "stage.1.0": "stages.1.0",
        "clasifier": "classifier",
    }.items():
        with pytest.raises(
            ValueError, match=rf"layers\['x'\]: expected .*, got '{wrong}'; the nearest is '{nearest}'"
        ):
            FeatureTap(model, {"x": wrong})
    with pytest.raises(ValueError, match="expected the path of a layer of ReLU, got 'stages'"):
        FeatureTap(nn.ReLU(), {"x": "stages"})


@pytest.mark.parametrize("container", [nn.ModuleDict({"net": nn.ReLU()}), nn.ModuleList([nn.ReLU()])])
def test_tap_refuses_what_is_never_called(container):
    # without its call nothing says that a new batch began: an old one's features could be read
    with pytest.raises(
        ValueError, match=f"model: expected a module that is called, got a {type(container).__name__}"
    ):
        FeatureTap(container, {"x": next(iter(dict(container.named_children())))})


def test_tap_read_too_early_or_by_a_wrong_name():
    model = network()
    tap = FeatureTap(model, {"first": "0"})
    with pytest.raises(RuntimeError, match=r"nothing recorded for 'first'.*forward.*layer '0'"):
        tap["first"]
    model(IMAGES)  # outside of the block, nothing is recorded
    with pytest.raises(RuntimeError):
        tap["first"]
    with pytest.raises(KeyError, match=r"no layer is tapped as 'frist', only as \['first'\]"):
        tap["frist"]


def test_tap_forgets_a_layer_that_the_last_forward_went_around():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x, stop_early=False):
            x = self.first(x)
            return x if stop_early else self.second(x)

    model = Early()
    with FeatureTap(model, {"first": "first", "second": "second"}) as tap:
        model(torch.ones(1, 2))
        tap["second"]
        model(torch.ones(3, 2), stop_early=True)
        assert tap["first"].shape == (3, 2)
        with pytest.raises(RuntimeError, match="went around"):
            tap["second"]


def test_tap_refuses_what_is_not_a_tensor():
    model = nn.Sequential(nn.LSTM(2, 2))
    told = r"^layer '0' returns a tuple, not a tensor: tap a layer inside it$"
    with FeatureTap(model, {"x": "0"}), pytest.raises(TypeError, match=told):
        model(torch.ones(1, 1, 2))


def test_tap_under_no_grad_inference_mode_and_autocast():
    model = network(inplace=True)
    with FeatureTap(model, {"norm": "1.norm", "last": "1.last"}) as tap:
        with torch.no_grad():
            model(IMAGES)
        assert not tap["norm"].requires_grad and (tap["norm"] < 0).any()
        with torch.inference_mode():
            model(IMAGES)
        assert (tap["norm"] < 0).any()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(IMAGES)
        assert tap["last"].dtype == torch.bfloat16
        at_loss(tap["last"], facts.random_tensor(4, 5, 3, 3, dtype=torch.float32)).backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_tap_in_data_parallel():
    model = network()
    parallel = nn.DataParallel(model)
    with FeatureTap(parallel, {"norm": "1.norm"}) as tap:
        parallel(IMAGES)
        features = tap["norm"]
        assert features.shape == (4, 2, 6, 6)
        features.sum().backward()
    assert model[0].weight.grad is not None and num_hooks(parallel) == 0
    with pytest.raises(ValueError, match=r"of Sequential, got 'module\.1\.norm'; the nearest is '1\.norm'"):
        FeatureTap(parallel, {"norm": "module.1.norm"})


def test_tap_refuses_a_replica_of_the_tapped_model():
    model = nn.Sequential(nn.ReLU())
    replica = model[0]._replicate_for_data_parallel()  # as DataParallel makes them: it shares the hooks
    told = r"^DataParallel split the batch: tap the DataParallel model, not the one inside$"
    with FeatureTap(model, {"x": "0"}), pytest.raises(RuntimeError, match=told):
        replica(IMAGES)
    with FeatureTap(nn.DataParallel(model), {"x": "0"}) as tap:
        replica(IMAGES)
        torch.testing.assert_close(tap["x"], IMAGES.relu())


def test_parts_of_a_batch_come_back_in_order():
    first, second = torch.tensor([[0.0], [1.0]], requires_grad=True), torch.tensor([[2.0]])
    whole = _in_batch_order({0: second, 1: first}, device_ids=[1, 0])
    torch.testing.assert_close(whole, torch.tensor([[0.0], [1.0], [2.0]]))
    whole.sum().backward()
    assert first.grad is not None
    # a small batch leaves devices without a part
    torch.testing.assert_close(
        _in_batch_order({0: second, 3: second}, [3, 2, 0]), torch.cat([second, second])
    )


class OnGPU(torch.Tensor):
    """A part of a batch that says it lies on the GPU `number`, and remembers where it is sent."""

    number: int
    sent_to: torch.device

    @property
    def device(self):
        return torch.device("cuda", self.number)

    def clone(self):
        return self

    def to(self, device):
        self.sent_to = device
        return self.as_subclass(torch.Tensor)


def test_a_tap_puts_the_replicas_parts_in_order_on_the_first_gpu():
    parallel = nn.DataParallel(nn.Sequential(nn.Identity()))
    parallel.device_ids = [1, 0]
    first, second = IMAGES[:3].as_subclass(OnGPU), IMAGES[3:].as_subclass(OnGPU)
    first.number, second.number = 1, 0
    with FeatureTap(parallel, {"x": "0"}) as tap:
        for part in (second, first):  # the GPU that is ready first
            parallel.module[0]._replicate_for_data_parallel()(part)
        torch.testing.assert_close(tap["x"], IMAGES)
    assert first.sent_to == second.sent_to == torch.device("cuda:1")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tap_gathers_the_replicas_of_data_parallel():
    model = network().eval()
    expected = model[0](IMAGES)
    parallel = nn.DataParallel(model.to("cuda:1"), device_ids=[1, 0])
    with FeatureTap(parallel, {"first": "0"}) as tap:
        parallel(IMAGES.to("cuda:1"))
    assert tap["first"].device == torch.device("cuda:1")
    torch.testing.assert_close(tap["first"].cpu(), expected, rtol=1e-2, atol=1e-3)


def test_tap_in_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        model = network()
        distributed = nn.parallel.DistributedDataParallel(model)
        with FeatureTap(distributed, {"norm": "1.norm"}) as tap:
            logits = distributed(IMAGES)
            (logits.mean() + tap["norm"].pow(2).mean()).backward()
        assert model[1].conv.weight.grad.abs().sum() > 0 and num_hooks(distributed) == 0
    finally:
        torch.distributed.destroy_process_group()


def test_tapped_student_learns_from_a_tapped_teacher():
    """The whole way: two networks of different widths, a regressor, one step of gradient descent."""
    teacher = models.teacher_cnn(seed=1).eval()
    student = models.small_cnn(seed=2)
    regressor = Regressor(16, 64)
    images = facts.random_tensor(8, 1, 28, 28, std=1.0, dtype=torch.float32)
    optimizer = torch.optim.Adam([*student.parameters(), *regressor.parameters()], lr=0.01)
    losses = []
    with (
        FeatureTap(teacher, {"hint": "stages.1"}) as hint,
        FeatureTap(student, {"guided": "stages.1"}) as guided,
    ):
        with torch.no_grad():
            teacher(images)
        for _ in range(20):
            student(images)
            loss = hint_loss(regressor(guided["guided"]), hint["hint"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
