"""The tap: what layers return, from every kind of model that people tap."""

import copy
import io
import re

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

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
            assert num_hooks(model) == 4  # one for each layer, and where the model's call begins and ends
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


class Heads(nn.Module):
    """A head shared by three levels, as detectors have it, and reached by another method as well."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 3)
        self.twin = nn.ModuleList([self.head])
        self.reentrant = reentrant

    def one(self, x):
        if self.reentrant is None:
            return self.head(x).tanh()
        # the tanh's backward pass needs what the head has returned, which is computed once more
        return checkpoint(lambda x: self.head(x).tanh(), x, use_reentrant=self.reentrant)

    def forward(self, x):
        hidden = self.body(x)
        return sum(self.one(level * hidden) for level in (1.0, 2.0, 3.0))


POINTS = facts.random_tensor(5, 2, dtype=torch.float32)


def levels(model, points=POINTS):
    hidden = F.linear(points, model.body.weight, model.body.bias)
    return [F.linear(level * hidden, model.head.weight, model.head.bias) for level in (1.0, 2.0, 3.0)]


def test_every_call_of_a_shared_head_is_kept_in_order_and_carries_gradients():
    model = Heads()
    with FeatureTap(model, {"head": "head", "body": "body"}) as tap:
        for points in (POINTS, POINTS[:3]):  # the second pass forgets the first
            model(points)
            torch.testing.assert_close(tap.calls("head"), levels(model, points))
            torch.testing.assert_close(tap["head"], levels(model, points)[-1])
            assert len(tap.calls("body")) == 1
    (gradient,) = torch.autograd.grad(sum(call.pow(2).sum() for call in tap.calls("head")), model.head.weight)
    (expected,) = torch.autograd.grad(
        sum(level.pow(2).sum() for level in levels(model, POINTS[:3])), model.head.weight
    )
    torch.testing.assert_close(gradient, expected)
    with pytest.raises(KeyError, match="no layer is tapped as 'haed'"):
        tap.calls("haed")


def test_two_views_are_read_one_after_the_other():
    model = Heads()
    with FeatureTap(model, {"head": "head"}) as tap:
        views = []
        for points in (POINTS, POINTS + 1):
            model(points)
            views.append(tap["head"])
    torch.testing.assert_close(views, [levels(model, points)[-1] for points in (POINTS, POINTS + 1)])


def test_calls_of_another_method_are_no_forward_pass():
    model = Heads()
    with FeatureTap(model, {"head": "head"}) as tap:
        model(POINTS)
        model.one(POINTS[:2])
        assert tap["head"].shape == (2, 3)  # the last call, and no list that grows with every one
        with pytest.raises(RuntimeError, match=r"^the calls of 'head' are not those of one forward pass"):
            tap.calls("head")
        model(POINTS)
        assert len(tap.calls("head")) == 3


def test_calls_in_data_parallel_come_back_call_by_call():
    parallel = nn.DataParallel(nn.Sequential(nn.Identity()))
    parallel.device_ids = [1, 0]
    with FeatureTap(parallel, {"x": "0"}) as tap:
        for part, number in ((IMAGES[3:], 0), (IMAGES[:3], 1), (-IMAGES[:3], 1), (-IMAGES[3:], 0)):
            part = part.as_subclass(OnGPU)
            part.number = number
            tap._is_running = True  # as it is while the replicas run
            parallel.module[0]._replicate_for_data_parallel()(part)
        torch.testing.assert_close(tap.calls("x"), [IMAGES, -IMAGES])


def test_a_module_with_two_paths_is_tapped_by_either():
    model = Heads()
    with FeatureTap(model, {"one": "head", "other": "twin.0"}) as tap:
        model(POINTS)
    torch.testing.assert_close(tap["one"], tap["other"])


# Checkpointed models


def test_a_checkpoint_that_cuts_the_gradient_off_is_named():
    model = Heads(reentrant=True)
    told = (
        "layer 'head' runs inside an autograd Function, without gradient. "
        "If that is a checkpoint with use_reentrant=True, use use_reentrant=False"
    )
    with FeatureTap(model, {"head": "head"}), pytest.raises(RuntimeError, match=f"^{re.escape(told)}$"):
        model(POINTS)
    whole = nn.Sequential(Heads())
    with FeatureTap(whole[0], {"head": "head"}), pytest.raises(RuntimeError, match="use_reentrant=False"):
        checkpoint(whole, POINTS.clone().requires_grad_(), use_reentrant=True)


def test_a_checkpoint_is_no_trouble_where_no_gradient_is_asked_for():
    model = Heads(reentrant=True)
    points = POINTS.clone().requires_grad_()
    with FeatureTap(model, {"head": "head"}) as tap, torch.no_grad():
        model(points)
    torch.testing.assert_close(tap["head"], levels(model)[-1].detach())
    frozen = model.requires_grad_(False)
    with FeatureTap(frozen, {"head": "head"}) as tap:
        frozen(points)
    torch.testing.assert_close(tap["head"], levels(model)[-1].detach())


def test_a_layer_under_no_grad_in_a_model_that_trains_answers_without_gradient():
    class Momentum(nn.Module):
        """A network whose own target network is read without gradient, as in BYOL."""

        def __init__(self):
            super().__init__()
            self.online, self.target = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            with torch.no_grad():
                target = self.target(x)
            return self.online(x) - target

    model = Momentum()
    with FeatureTap(model, {"online": "online", "target": "target"}) as tap:
        model(POINTS)
    assert tap["online"].requires_grad and not tap["target"].requires_grad


def test_a_checkpoint_that_keeps_the_gradient_is_tapped_as_the_plain_model():
    gradients = []
    for reentrant in (None, False):
        torch.manual_seed(0)
        model = Heads(reentrant)
        with FeatureTap(model, {"head": "head"}) as tap:
            logits = model(POINTS)
            loss = logits.pow(2).mean() + sum(call.pow(3).mean() for call in tap.calls("head"))
            loss.backward()
            if reentrant is False:  # the backward pass has run the head once more
                with pytest.raises(RuntimeError, match="backward pass through checkpoints"):
                    tap.calls("head")
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


# Copies


def test_a_copy_made_inside_the_block_is_not_tapped():
    model = network()
    with FeatureTap(model, {"first": "0"}) as tap:
        model(IMAGES)
        twin = copy.deepcopy(model)
        twin(IMAGES[:2] + 1)  # the copy of an EMA, of the best weights so far
        assert tap["first"].shape[0] == 4
        torch.save(twin, io.BytesIO())
    assert num_hooks(model) == 0
    only_the_copy = FeatureTap(model, {"first": "0"})
    with only_the_copy:
        copy.deepcopy(model)(IMAGES)
        with pytest.raises(RuntimeError, match=r"^nothing recorded for 'first': .* A copy of the model"):
            only_the_copy["first"]


def test_a_model_is_saved_outside_of_the_block():
    model = network()
    with FeatureTap(model, {"first": "0"}):
        with pytest.raises(
            RuntimeError, match=r"^leave the `with FeatureTap` block before you save the model"
        ):
            torch.save(model, io.BytesIO())
        torch.save(model.state_dict(), io.BytesIO())
    torch.save(model, io.BytesIO())


# Compiled, scripted, traced and exported models


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda model, **settings: torch.compile(model, backend="eager", **settings)
    torch._dynamo.reset()


NOTHING = r"^nothing recorded for 'head': the last forward pass went around .* compiled outside of the `with`"


@pytest.mark.parametrize("fullgraph, reentrant", [(True, None), (False, None), (False, False)])
def test_a_compiled_model_that_is_first_called_inside_the_block_is_tapped(compiled, fullgraph, reentrant):
    model = Heads(reentrant)
    tapped = compiled(model, fullgraph=fullgraph)
    with FeatureTap(tapped, {"head": "head", "logits": ""}) as tap:
        for points in (POINTS, POINTS + 1, POINTS[:3], POINTS):
            logits = tapped(points)
            torch.testing.assert_close(tap.calls("head"), levels(model, points))
            torch.testing.assert_close(tap["logits"], logits)
        tap["head"].sum().backward()
    assert model.head.weight.grad.abs().sum() > 0
    last = tap["head"]
    tapped(POINTS + 2)  # the hooks are part of the compiled code now, and have nothing to do any more
    assert tap["head"] is last


def test_the_original_may_be_tapped_as_well(compiled):
    model = Heads()
    tapped = compiled(model)
    with FeatureTap(model, {"head": "head"}) as tap:
        tapped(POINTS)
    torch.testing.assert_close(tap.calls("head"), levels(model))


@pytest.mark.parametrize("tap_the_original", [False, True])
def test_a_model_compiled_before_the_block_answers_with_a_sentence_not_with_old_features(
    compiled, tap_the_original
):
    model = Heads()
    tapped = compiled(model)
    tapped(POINTS)
    with FeatureTap(model if tap_the_original else tapped, {"head": "head"}) as tap:
        if tap_the_original:
            model(POINTS[:2])
            tap["head"]
        tapped(POINTS)
        with pytest.raises(RuntimeError, match=NOTHING):
            tap["head"]


def test_a_model_compiled_before_the_block_is_tapped_where_hooks_are_guarded(compiled):
    model = Heads()
    tapped = compiled(model)
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        tapped(POINTS)
        for points in (POINTS, POINTS[:2]):
            with FeatureTap(tapped, {"head": "head"}) as tap:
                tapped(points)
            torch.testing.assert_close(tap.calls("head"), levels(model, points))


def test_a_model_compiled_in_place_is_tapped(compiled):
    model = Heads()
    model.compile(backend="eager")
    with FeatureTap(model, {"head": "head"}) as tap:
        model(POINTS)
        torch.testing.assert_close(tap["head"], levels(model)[-1])
    late = Heads()
    late.compile(backend="eager")
    late(POINTS)
    with FeatureTap(late, {"head": "head"}) as tap:
        late(POINTS)
        with pytest.raises(RuntimeError, match=NOTHING):
            tap["head"]


def test_a_checkpoint_in_a_compiled_model_that_cuts_the_gradient_off_is_named(compiled):
    tapped = compiled(Heads(reentrant=True))
    with FeatureTap(tapped, {"head": "head"}), pytest.raises(RuntimeError, match="use_reentrant=False"):
        tapped(POINTS)


def exported(model):
    return torch.export.export(model, (POINTS,))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    "translate",
    [
        lambda model: torch.jit.trace(model, POINTS),
        lambda model: torch.jit.script(nn.Sequential(model.body)),
        lambda model: exported(model).module(),
    ],
    ids=["traced", "scripted", "exported"],
)
def test_layers_of_a_translated_model_are_refused(translate):
    inner = translate(Heads())
    path = next(name for name, module in inner.named_modules() if name)
    outer = nn.Sequential(inner)
    for model, tapped in ((inner, path), (outer, f"0.{path}")):
        with pytest.raises(
            ValueError, match=rf"^layers\['x'\]: expected a layer whose hooks run, got '{tapped}', which was "
        ):
            FeatureTap(model, {"x": tapped})


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_translated_model_may_be_tapped_as_a_whole_where_python_calls_it():
    outer = nn.Sequential(exported(Heads()).module())
    with FeatureTap(outer, {"x": "0"}) as tap:
        answer = outer(POINTS)
    torch.testing.assert_close(tap["x"], answer)
    with pytest.raises(ValueError, match=r"got '0', which was scripted"):
        FeatureTap(nn.Sequential(torch.jit.trace(Heads(), POINTS)), {"x": "0"})
    with pytest.raises(ValueError, match=r"got '', which was scripted"):
        FeatureTap(torch.jit.trace(Heads(), POINTS), {"x": ""})


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    "translate", [lambda model: torch.jit.trace(model, POINTS, check_trace=False), exported]
)
def test_translating_the_tapped_model_records_nothing(translate):
    model = Heads()
    with FeatureTap(model, {"head": "head"}) as tap:
        translate(model)
        with pytest.raises(
            RuntimeError, match=r"^nothing recorded for 'head': .*traced or exported, is not tapped"
        ):
            tap["head"]


def test_a_graph_module_is_tapped_where_it_calls_its_layers():
    graph = fx.symbolic_trace(Heads())
    with FeatureTap(graph, {"head": "head", "body": "body"}) as tap:
        graph(POINTS)
    torch.testing.assert_close(tap.calls("head"), levels(graph))


# Arguments of a wrong kind


@pytest.mark.parametrize(
    "model, layers, told",
    [
        (lambda x: x, {"x": "0"}, "model: expected a module that is called, got a function: .*"),
        (None, ["0"], "layers: expected a dict from names of your choice to paths of layers, got a list"),
        (None, "0", "layers: expected a dict from names of your choice to paths of layers, got a str"),
        (
            None,
            {"x": nn.ReLU()},
            r"layers\['x'\]: expected the path of a layer as a string, got a ReLU",
        ),
        (None, {"x": 0}, r"layers\['x'\]: expected the path of a layer as a string, got a int"),
    ],
)
def test_arguments_of_a_wrong_kind_are_named(model, layers, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        FeatureTap(model or network(), layers)


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
