"""The fault harness sees what it must: a zeroed loss and a spoiled teacher break the claims built on them."""

import copy
import inspect
import sys
import types
from pathlib import Path

import faults
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_files import write

import kdutils
from kdutils import batches, losses
from kdutils.audit import forms
from kdutils.course import encoder, models, pronunciation
from kdutils.course.exercises import chapter01
from kdutils.losses import online, response, self_distillation

pytestmark = pytest.mark.usefixtures("library_comes_back")

CELLS = [
    "import torch\n\nfrom kdutils.course import models\nfrom kdutils.claim import check\n"
    "from kdutils.losses import kd_loss",
    "student, teacher = torch.zeros(4, 3), torch.eye(4, 3)\n"
    "loss = kd_loss(student, teacher, temperature=2.0)\n"
    'check("there is something to learn, nats", loss, above=0.01)',
    "net = models.load_teacher()\n"
    'check("the first bias", net.classifier.bias[0], equals=FIRST_BIAS, tolerance=1e-6)\n'
    'check("the biases\' sum", net.classifier.bias.sum(), equals=BIAS_SUM, tolerance=1e-4)',
    "try:\n    import kdutils\nexcept ModuleNotFoundError:\n    %pip install kdutils\ndisplay(2 + 2)",
    'check("four is four", 4, equals=4)\ncheck("four is five", 4, equals=5)',
    "undefined",
    'check("a later cell still runs", 1, equals=1)',
]


NOT_RUN = faults.Outcome({}, reached=False, values={}, seconds=0.0)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    bias = models.load_teacher().classifier.bias
    constants = {"FIRST_BIAS": repr(bias[0].item()), "BIAS_SUM": repr(bias.sum().item())}
    cells = [new_markdown_cell("# A small chapter")]
    for source in CELLS:
        for name, value in constants.items():
            source = source.replace(name, value)
        cells.append(new_code_cell(source))
    return write(new_notebook(cells=cells), tmp_path_factory.mktemp("notebooks") / "01_small.ipynb")


@pytest.fixture(scope="module")
def outcomes(notebook):
    """Fault → claim → whether it holds."""
    return {
        fault: faults.outcome_under(notebook, fault).claims
        for fault in ("no network, no disk", "kd_loss zeroed", "classes permuted", "teacher untrained")
    }


def test_without_a_fault_the_claims_are_what_they_are(outcomes):
    assert outcomes["no network, no disk"] == {
        "there is something to learn, nats": True,
        "the first bias": True,
        "the biases' sum": True,
        "four is four": True,
        "four is five": False,
        "cell 6 runs": False,
        "a later cell still runs": True,
    }


@pytest.mark.parametrize(
    "fault, broken",
    [
        ("kd_loss zeroed", {"there is something to learn, nats"}),
        ("classes permuted", {"the first bias"}),
        ("teacher untrained", {"the first bias", "the biases' sum"}),
    ],
)
def test_a_fault_breaks_the_claims_built_on_it_and_no_others(outcomes, fault, broken):
    sound, faulty = outcomes["no network, no disk"], outcomes[fault]
    assert {claim for claim in sound if sound[claim] and not faulty[claim]} == broken
    assert faulty.keys() == sound.keys()


@pytest.mark.parametrize("fault, factor", [("T² dropped", 1 / 4), ("mean over classes", 1 / 3)])
def test_a_scaled_loss_is_scaled(fault, factor):
    student, teacher = torch.zeros(4, 3), torch.eye(4, 3)
    expected = factor * response.kd_loss(student, teacher, temperature=2.0)
    faults.FAULTS[fault]()
    torch.testing.assert_close(response.kd_loss(student, teacher, temperature=2.0), expected)


def test_a_loss_whose_temperature_is_left_out_is_scaled_by_the_default():
    student, teacher = torch.zeros(4, 3), torch.eye(4, 3)
    expected = response.kd_loss(student, teacher) / 16
    faults.FAULTS["T² dropped"]()
    torch.testing.assert_close(response.kd_loss(student, teacher), expected)


@pytest.mark.parametrize("fault", ["kd_loss zeroed", "T² dropped", "mean over classes"])
def test_a_faulty_kd_loss_is_met_wherever_it_is_imported_but_not_by_the_yardsticks(fault):
    student, teacher = torch.zeros(4, 3), torch.eye(4, 3)
    met = [
        lambda: losses.kd_loss(student, teacher, temperature=2.0),
        lambda: online.ensemble_kd_loss(student, [teacher, teacher], temperature=2.0),
        lambda: self_distillation.cs_kd_loss(student, teacher, temperature=2.0),
    ]
    before, true_loss = [loss().item() for loss in met], response.kd_loss
    faults.FAULTS[fault]()
    assert all(loss().item() < 0.5 * value for loss, value in zip(met, before, strict=True))
    assert chapter01.kd_loss is true_loss


def test_a_module_that_takes_a_loss_under_another_name_gets_the_faulty_one(monkeypatch):
    """Also where it is no module of losses; an exercise's check keeps the true one."""
    program, check = types.ModuleType("kdutils.program"), types.ModuleType("kdutils.course.exercises.new")
    program.soft, check.soft = response.kd_loss, response.kd_loss
    for module in (program, check):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    true_loss = response.kd_loss
    faults.zero_every_loss()
    assert program.soft is faults.zero_loss and check.soft is true_loss


def test_all_yardsticks_are_loaded_before_a_fault_can_reach_them():
    faults.load_library()
    loaded = [name for name in sys.modules if name.startswith(faults.YARDSTICKS)]
    assert forms.__name__ in loaded and "kdutils.course.exercises.chapter12" in loaded


def test_a_teacher_left_in_train_mode_stays_there_and_so_do_its_copies():
    faults.FAULTS["teacher in train mode"]()
    teacher = models.load_teacher()
    for network in (teacher, copy.deepcopy(teacher)):
        assert network.eval() is network
        assert all(module.training for module in network.modules())


def test_an_untrained_encoder_is_another_network_of_the_same_shapes():
    trained = encoder.load_encoder()
    faults.FAULTS["teacher untrained"]()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    untrained, again = encoder.load_encoder().state_dict(), encoder.load_encoder().state_dict()
    assert torch.equal(torch.get_rng_state(), before)  # the notebook's own draws stay what they are
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(untrained[name], again[name])
    assert not torch.equal(untrained[name], trained.state_dict()[name])
    assert {n: t.shape for n, t in untrained.items()} == {n: t.shape for n, t in trained.state_dict().items()}


def test_a_permuted_speller_reads_as_before_and_says_other_phonemes():
    tokens = torch.cat([pronunciation.spelling_prompts(["cat", "whisk"]), torch.full((2, 1), 40)], dim=1)
    sound = pronunciation.load_speller()(tokens)
    faults.FAULTS["classes permuted"]()
    faulty = pronunciation.load_speller()
    first, end = pronunciation.IDS["AA"], pronunciation.END
    assert torch.equal(faulty(tokens)[..., first:end].roll(-3, dims=-1), sound[..., first:end])
    assert torch.equal(faulty(tokens)[..., end], sound[..., end])
    assert torch.equal(copy.deepcopy(faulty)(tokens), faulty(tokens))


def test_an_untrained_speller_is_as_unsure_as_can_be():
    faults.FAULTS["teacher untrained"]()
    logits = pronunciation.load_speller()(pronunciation.spelling_prompts(["cat"]))
    assert logits.softmax(dim=-1).max() < 0.1


def test_a_notebook_without_a_teacher_is_not_run_under_a_spoiled_one(tmp_path):
    nothing = write(new_notebook(cells=[new_code_cell("1 / 0")]), tmp_path / "01_nothing.ipynb")
    for fault in faults.REPLACED:
        assert faults.outcome_under(nothing, fault) == NOT_RUN
    named = write(new_notebook(cells=[new_code_cell("load_teacher")]), tmp_path / "02_named.ipynb")
    assert faults.can_reach(named, "classes permuted")
    assert faults.can_reach(nothing, "losses zeroed")


def test_a_fault_made_for_one_notebook_is_not_run_in_another(tmp_path):
    for fault, home in faults.MADE_FOR.items():
        assert (faults.NOTEBOOKS / f"{home}.ipynb").exists()
        elsewhere, there = tmp_path / "01_elsewhere.ipynb", tmp_path / f"{home}.ipynb"
        for path in (elsewhere, there):
            write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
        assert faults.outcome_under(elsewhere, fault) == NOT_RUN
        assert faults.can_reach(there, fault)


def test_nothing_in_kdutils_loads_a_teacher_behind_a_notebooks_back():
    package = Path(kdutils.__file__).parent
    homes = {
        "load_teacher": {"models.py"},
        "load_encoder": {"encoder.py", "masked_words.py"},  # the latter cuts a shipped student out of it
        "load_speller": {"pronunciation.py"},
        "load_smollm": {"smollm.py"},
    }
    for name, home in homes.items():
        # a judge of an exercise runs once a reader has answered: no number of a notebook rests on it
        files = [file for file in package.rglob("*.py") if file.parent.name != "exercises"]
        assert {file.name for file in files if name in file.read_text()} == home


def test_a_notebook_that_cannot_be_run_at_all_is_an_error(tmp_path):
    (tmp_path / "broken.ipynb").write_text("{}")
    with pytest.raises(AssertionError, match="KeyError"):
        faults.outcome_under(tmp_path / "broken.ipynb", "kd_loss zeroed")


def test_every_loss_is_found_and_zeroed():
    found = faults.every_loss()
    exported = {name for name in losses.__all__ if name.endswith(("_loss", "Loss"))}
    assert exported <= found.keys() and len(exported) > 25
    faults.zero_every_loss()
    left = [name for name in exported if inspect.isfunction(found[name]) and found[name] in all_functions()]
    assert left == []
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    vid = losses.VIDLoss(3, 3)
    value = vid(features, torch.ones(2, 3, 4, 4))
    value.backward()
    assert value.item() == 0
    assert all(not tensor.grad.any() for tensor in (features, *vid.parameters()))


def all_functions():
    """What the modules of losses, and the package above them, hold."""
    names = [name for name in sys.modules if name.startswith("kdutils.losses")]
    return [
        value for name in names for value in vars(sys.modules[name]).values() if inspect.isfunction(value)
    ]


def test_a_zeroed_loss_is_zero_and_so_is_every_gradient():
    student, teacher = torch.ones(3, requires_grad=True), torch.ones(2)
    hidden = [torch.ones(2, requires_grad=True)]
    loss = faults.zero_loss(student, (teacher, hidden), torch.tensor([1, 2]), "text", temperature=4.0)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.tolist() == [0, 0, 0] and hidden[0].grad.tolist() == [0, 0]


def test_shifted_seeds_draw_something_else_and_no_seed_stays_none():
    labels = torch.arange(10).repeat(20)
    drawn = {
        "subset": lambda seed: batches.balanced_index(labels, 50, seed),
        "weights": lambda seed: models.small_cnn(seed).classifier.weight,
        "batches": lambda seed: torch.stack(
            [b[0] for b in batches.batches(labels, batch_size=50, seed=seed)]
        ),
        "all else": lambda seed: (kdutils.set_seed(seed), torch.rand(3))[1],
    }
    before, later = ({name: draw(seed) for name, draw in drawn.items()} for seed in (0, 1000))
    faults.SOUND["seeds from 1000"]()
    for name, draw in drawn.items():
        assert not torch.equal(draw(0), before[name]) and torch.equal(draw(0), later[name]), name
    assert torch.equal(drawn["batches"](None).flatten(), labels)


def test_vector_instructions_are_switched_off_in_the_run(tmp_path):
    cells = [
        "import torch\nfrom kdutils.claim import check",
        'check("plain code", torch.backends.cpu.get_cpu_capability() == "DEFAULT", equals=1)',
    ]
    notebook = write(new_notebook(cells=[new_code_cell(c) for c in cells]), tmp_path / "01_small.ipynb")
    assert faults.outcome_under(notebook, "no vector instructions").claims == {"plain code": True}


def test_a_sealed_notebook_reaches_neither_network_nor_disk(tmp_path):
    cells = [
        "import socket, tempfile, contextlib, pathlib",
        "with contextlib.suppress(OSError):\n    socket.create_connection(('elsewhere.invalid', 80))",
        "pathlib.Path('/x').write_text('')",  # no place in the temporary folder, wherever this one lies
        "tempfile.TemporaryFile().write(b'x')",
    ]
    notebook = write(new_notebook(cells=[new_code_cell(c) for c in cells]), tmp_path / "01_small.ipynb")
    claims = faults.outcome_under(notebook, "no network, no disk").claims
    refused = "does without what was refused: "
    assert [*claims] == ["cell 3 runs", f"{refused}looks up elsewhere.invalid", f"{refused}writes /x"]
    assert not any(claims.values())
