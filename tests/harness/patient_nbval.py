"""A pytest plugin that lets nbval wait: a machine that does other work, too, is no reason to fail a notebook.

nbval gives a kernel five seconds to hand over the output of a cell that has ended, ten to say that it is
there, and a minute to start. Beside six busy processes that was too short. How long a cell itself may take is
another setting, --nbval-cell-timeout.
"""

import functools
from typing import Any

from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

PATIENCE = 300  # seconds


def pytest_configure(config: Any) -> None:
    config.option.nbval_kernel_startup_timeout = PATIENCE
    await_reply = RunningKernel.await_reply

    @functools.wraps(await_reply)
    def await_reply_patiently(kernel: RunningKernel, msg_id: str, timeout: float | None = None) -> None:
        await_reply(kernel, msg_id, timeout if timeout is None else max(float(timeout), PATIENCE))

    RunningKernel.await_reply = await_reply_patiently


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        if isinstance(item, IPyNbCell):
            item.output_timeout = PATIENCE
