"""An exported network answers as the network does, in int8 nearly so, and is timed."""

import pytest
import torch

from kdutils.course import models, runtime

IMAGES = torch.randn(30, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return models.small_cnn(seed=0, width=8).eval()


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    fp32 = runtime.export_onnx(network, folder / "fp32.onnx", IMAGES[:2])
    return {"fp32": fp32, "int8": runtime.quantize_onnx(fp32, folder / "int8.onnx", IMAGES)}


def test_the_exported_network_answers_alike_for_any_number_of_images(network, files):
    for count in (1, 7, 30):
        with torch.no_grad():
            expected = network(IMAGES[:count])
        torch.testing.assert_close(
            runtime.onnx_logits(files["fp32"], IMAGES[:count]), expected, atol=1e-4, rtol=0
        )


def test_int8_answers_nearly_alike_in_a_smaller_file(network, files):
    with torch.no_grad():
        expected = network(IMAGES)
    apart = (runtime.onnx_logits(files["int8"], IMAGES) - expected).abs().max()
    assert 0 < apart < 0.2 * expected.abs().max()
    assert files["int8"].stat().st_size < files["fp32"].stat().st_size
    assert sorted(path.name for path in files["fp32"].parent.iterdir()) == ["fp32.onnx", "int8.onnx"]


def test_modules_and_files_are_timed_by_name(network, files):
    times = runtime.latencies_ms({"eager": network, **files}, IMAGES[:1], rounds=2, min_run_time=0.005)
    assert list(times) == ["eager", "fp32", "int8"] and all(0 < ms < 1000 for ms in times.values())


def test_what_would_export_wrongly_is_refused(network, tmp_path):
    with pytest.raises(ValueError, match="sample: expected at least 2 images, got 1"):
        runtime.export_onnx(network, tmp_path / "net.onnx", IMAGES[:1])
    with pytest.raises(ValueError, match="images: expected some to set the scales"):
        runtime.quantize_onnx(tmp_path / "net.onnx", tmp_path / "int8.onnx", IMAGES[:0])
    with pytest.raises(ValueError, match="expected one in eval mode"):
        runtime.export_onnx(models.small_cnn(width=4).train(), tmp_path / "net.onnx", IMAGES[:2])
