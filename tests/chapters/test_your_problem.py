"""Scenes and orders are what they say, and their scores count what they should."""

import matplotlib.pyplot as plt
import pytest
import torch

from kdutils.course import data, your_problem
from kdutils.course.your_problem import (
    IGNORED,
    MAPS,
    NAMES,
    TAGS,
    WORDS,
    Orders,
    SceneNet,
    Scenes,
    scenes,
    words_of,
)


@pytest.fixture(scope="module")
def split():
    return data.fashion_mnist().validation


@pytest.fixture(scope="module")
def some(split):
    return scenes(split, 40, seed=0)


def test_a_seed_draws_the_same_scenes_and_another_seed_others(split, some):
    again, others = scenes(split, 40, seed=0), scenes(split, 40, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(some, again, strict=True))
    assert not torch.equal(some.images, others.images)


def test_all_labels_of_a_scene_tell_of_the_same_garments(some):
    for scene in range(40):
        in_cells = some.cells[scene][some.cells[scene] > 0] - 1
        assert 1 <= len(in_cells) <= 3
        assert set(in_cells.tolist()) == set(some.tags[scene].nonzero()[:, 0].tolist())
        costs = [your_problem.GARMENTS[garment][2] for garment in in_cells.tolist()]
        assert some.prices[scene].item() == sum(costs)
        in_mask = set(some.masks[scene].unique().tolist()) - {0, IGNORED}
        assert in_mask <= {garment + 1 for garment in in_cells.tolist()}


def test_boxes_lie_in_their_cells_and_around_their_masks(some):
    there = some.cells > 0
    of_garments = some.boxes.permute(0, 2, 3, 1)[there]
    assert (of_garments[:, :2] >= 0).all() and (of_garments[:, :2] < 1).all()
    assert of_garments[:, 2].min() >= 16 / 48 and of_garments[:, 2].max() <= 0.5
    assert (some.boxes.permute(0, 2, 3, 1)[~there] == 0).all()
    corners = 24 * your_problem._corners(some.boxes)
    for scene, row, column in there.nonzero().tolist()[:20]:
        left, top, right, bottom = corners[scene, :, row, column].tolist()
        inside = some.masks[scene][int(top) : int(bottom) + 1, int(left) : int(right) + 1]
        assert (inside == some.cells[scene, row, column]).any()


def perfect_maps(truth):
    """Maps that answer all four questions rightly, as far as 12 × 12 maps can."""
    masks = torch.where(truth.masks == IGNORED, 0, truth.masks)[:, ::2, ::2]
    boxes = truth.boxes.clamp(1e-4, 1 - 1e-4).logit()
    cells = torch.nn.functional.one_hot(truth.cells, 6).permute(0, 3, 1, 2) * 20.0
    tags = torch.full((len(truth.tags), 5, 12, 12), -20.0)
    tags[:, :, 0, 0] = 40 * truth.tags - 20
    return {
        "masks": torch.nn.functional.one_hot(masks, 6).permute(0, 3, 1, 2) * 20.0,
        "tags": tags,
        "prices": (truth.prices / 10).view(-1, 1, 1, 1).expand(-1, -1, 12, 12),
        "boxes": torch.cat([cells, boxes], dim=1).repeat_interleave(3, 2).repeat_interleave(3, 3),
    }


def test_right_answers_score_fully_and_empty_ones_do_not(some):
    right = perfect_maps(some)
    assert your_problem.mean_iou(right["masks"], some) > 70
    assert your_problem.tag_f1(right["tags"], some) == 100
    assert your_problem.price_error(right["prices"], some) == pytest.approx(0, abs=1e-4)
    assert your_problem.boxes_found(right["boxes"], some) == 100
    empty = {name: torch.zeros_like(maps) for name, maps in right.items()}
    empty["tags"] -= 20
    assert your_problem.mean_iou(empty["masks"], some) < 20
    assert your_problem.tag_f1(empty["tags"], some) == 0
    assert your_problem.boxes_found(empty["boxes"], some) == 0


def test_a_box_that_is_moved_away_or_has_another_name_does_not_count(some):
    right = perfect_maps(some)["boxes"]
    moved = right.clone()
    moved[:, 8] -= 5  # far too small
    assert your_problem.boxes_found(moved, some) < 20
    renamed = torch.cat([right[:, :1], right[:, 1:6].roll(1, dims=1), right[:, 6:]], dim=1)
    assert your_problem.boxes_found(renamed, some) == 0


def test_losses_are_smallest_for_right_answers(some):
    right = perfect_maps(some)
    targets = {"tags": (some.tags,), "prices": (some.prices,), "boxes": (some.cells, some.boxes)}
    of_loss = {
        "tags": your_problem.tag_loss,
        "prices": your_problem.price_loss,
        "boxes": your_problem.box_loss,
    }
    for name, labels in targets.items():
        assert of_loss[name](right[name], *labels) < 1e-3
        assert of_loss[name](right[name].roll(1, dims=0), *labels) > 0.1


def test_ignored_pixels_do_not_count_in_the_masks_loss(some):
    maps = torch.randn(40, 6, 12, 12)
    all_ignored = torch.where(some.masks == 0, IGNORED, some.masks)
    assert your_problem.mask_loss(maps, all_ignored) != your_problem.mask_loss(maps, some.masks)
    few = some.masks.clone()
    few[:, 12:] = IGNORED
    other = maps.clone()
    other[:, :, 8:] = 0  # what is read there reaches the lower half only
    torch.testing.assert_close(your_problem.mask_loss(maps, few), your_problem.mask_loss(other, few))


def test_a_scene_teacher_answers_all_questions(split, some):
    teacher = your_problem.scene_teacher(split, count=64, steps=2)
    assert teacher(some.images).shape == (40, 21, 12, 12)
    parts = [range(21)[part] for part in MAPS.values()]
    assert sorted(place for part in parts for place in part) == list(range(21))
    assert SceneNet(6, 5)(some.images).shape == (40, 5, 12, 12)


def test_orders_are_dicts_in_which_padding_has_no_label():
    batch = torch.utils.data.default_collate([Orders(50, seed=0)[i] for i in range(50)])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    padded = batch["attention_mask"] == 0
    assert (
        padded.any() and (batch["labels"][padded] == -100).all() and (batch["input_ids"][padded] == 0).all()
    )
    assert batch["labels"][~padded].min() == 0 and batch["labels"].max() == len(TAGS) - 1


def test_a_word_is_a_person_here_and_a_color_there():
    seen = set()
    for order in Orders(400, seed=1):
        tagged = zip(words_of(order["input_ids"]), order["labels"].tolist(), strict=False)
        seen |= {(word, TAGS[tag]) for word, tag in tagged if tag >= 0}
    assert {("rose", "person"), ("rose", "color"), ("may", "person"), ("may", "day")} <= seen
    twice = {word for word, tag in seen if (word, "person") in seen and tag in ("color", "day")}
    assert twice <= set(your_problem.AMBIGUOUS) and "ten" in your_problem.AMBIGUOUS


def test_ambiguous_are_the_words_that_have_two_tags():
    ids = torch.tensor([[WORDS.index(word) + 1 for word in ("please", "rose", "anna", "may")] + [0]])
    assert your_problem.is_ambiguous(ids).tolist() == [[False, True, False, True, False]]


def test_the_way_stops_where_it_is_enough():
    tried, asked = ["export", "eight bits"], ["logits", "nothing"]

    def said(enough, taken):
        ax = your_problem.draw_way(tried, enough, asked, taken)
        words = {text.get_text() for text in ax.texts}
        arrows = len(ax.patches) - 4
        plt.close("all")
        return words, arrows

    words, arrows = said("export", "logits")
    assert {"export", "eight bits", "logits", "nothing", "it is enough: stop here"} <= words and arrows == 1
    words, arrows = said(None, "nothing")
    assert "a gap is left: ask the teacher" in words and arrows == 2


def test_scenes_are_drawn_with_their_boxes(some):
    your_problem.draw_scenes(some, count=3)
    axes = plt.gcf().axes
    assert len(axes) == 6
    assert sum(len(ax.patches) for ax in axes) == int((some.cells[:3] > 0).sum())
    assert all(any(name in ax.get_title(loc="center") for name in NAMES) for ax in axes[:3])
    plt.close("all")
    assert Scenes._fields[0] == "images"


def test_in_the_borrowed_teacher_only_the_student_is_trained_on_its_answers():
    ax = your_problem.draw_borrowed_teacher()
    words = {text.get_text() for text in ax.texts}
    assert {"encoder", "frozen", "head", "500 labels", "meaning,\non disk", "student", "trained"} <= words
    plt.close("all")
