"""Protection of the weights from losses and gradients that are NaN or infinite."""

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from lib.utils import distributed
from lib.utils.errors import InputError

logger = logging.getLogger(__name__)

MAX_SKIPPED = 10  # steps in a row
MAX_NAMED = 10  # image files in an error message
HALVINGS = 16  # halvings that reduce the initial scale of a GradScaler, 65,536, to 1


class StepGuard:
    """Takes an optimizer step only if its loss and gradients are finite.

    The optimizer makes the decision on the device, so that the CPU does not wait for a GPU at every
    step. ``check`` logs the skipped steps, and raises an error after too many in a row.

    Args:
        optimizer: created with ``fused=True``, because only fused optimizers can skip a step.
        files_of: maps indices of samples (``batch["index"]``) to image files.
        buffers: batch norm statistics; ``check`` restores the last good ones if they may now
            contain NaN or infinite values.
        scaler: scales the loss, for gradients in float16. It halves its scale at each skipped step
            until the gradients fit, so more skipped steps in a row are allowed.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        files_of: Callable[[Sequence[int]], list[str]],
        buffers: Iterable[Tensor] = (),
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self._scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self._allowed = HALVINGS if self._scaler.is_enabled() else 0
        self._buffers = list(buffers)
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        self._optimizer = optimizer
        self._files_of = files_of
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._losses: list[Tensor] = []
        self._indices: list[Tensor] = []
        # For each step, three flags and its samples. The flags: the step is finite, its batch norm
        # statistics are good, and this process may have caused NaN or infinite values.
        self._unread: list[tuple[Tensor, Tensor]] = []
        self._skipped: list[Tensor] = []  # sample indices of the latest steps skipped in a row

    def add(self, loss: Tensor, index: Tensor) -> None:
        """Add a batch to the next step: its loss, and the indices of its samples."""
        self._losses.append(loss)
        self._indices.append(index)

    def step(self) -> None:
        """Take a step with the gradients of the added batches if they and the loss are finite."""
        loss, index = torch.stack(self._losses).sum(), torch.cat(self._indices)
        self._losses, self._indices = [], []
        self._scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        own_loss = loss
        if distributed.world_size() > 1:  # the gradients are averaged, the loss is not
            loss = distributed.all_reduce_sum(loss)
        is_finite = total.isfinite() & loss.isfinite()
        # If all losses are finite, any process may have caused the gradients that are not.
        is_suspect = ~own_loss.isfinite() | loss.isfinite()
        self._optimizer.grad_scale = None
        self._optimizer.found_inf = (~is_finite).float()
        self._optimizer.step()
        self._scaler.update()
        # Gradients too large for float16 do not affect the batch norm statistics, which come from
        # the forward pass.
        is_clean = loss.isfinite() & (total.isfinite() | self._scaler.is_enabled())
        self._unread.append((torch.stack([is_finite, is_clean, is_suspect]), index))

    def keep_buffers(self) -> None:
        """Treat the current batch norm statistics as good; call after loading a checkpoint."""
        if self._buffers:
            torch._foreach_copy_(self._good_buffers, self._buffers)

    @property
    def is_failing(self) -> bool:
        """True if the last step before ``check`` was skipped (in float16: the last 17 steps)."""
        return len(self._skipped) > self._allowed

    def check(self, where: str) -> None:
        """Log the steps skipped since the last call, and restore bad batch norm statistics.

        This waits for the device. Messages begin with ``where``.

        Raises:
            InputError: 10 steps in a row were skipped (in float16, 26); the message names their
                images.
        """
        if not self._unread:
            return
        flags = torch.stack([flag for flag, _ in self._unread]).tolist()
        skipped = 0
        for (is_finite, _, is_suspect), (_, index) in zip(flags, self._unread, strict=True):
            suspects = index if is_suspect else index[:0]
            self._skipped = [] if is_finite else [*self._skipped, suspects]
            skipped += not is_finite
            if len(self._skipped) == MAX_SKIPPED + self._allowed:
                raise InputError(self._message(where))
        self._unread = []
        if self._buffers:
            good, current = self._good_buffers, self._buffers
            is_clean = all(clean for _, clean, _ in flags)
            torch._foreach_copy_(*((good, current) if is_clean else (current, good)))
        if skipped:
            # In float16, skipped steps are how the scaler finds the scale of the loss.
            level = logging.INFO if self._allowed else logging.WARNING
            reason = "the loss or the gradients were NaN or infinite"
            logger.log(level, "%s: skipped %d steps: %s", where, skipped, reason)

    def _message(self, where: str) -> str:
        own = self._files_of(torch.cat(self._skipped).tolist())
        files = list(dict.fromkeys(file for part in distributed.gather(own) for file in part))
        named = ", ".join(files[:MAX_NAMED])
        more = f" and {len(files) - MAX_NAMED} more" if len(files) > MAX_NAMED else ""
        # The log file lists all images, the message only the first.
        logging.getLogger("config").info("images of the skipped steps: %s", ", ".join(files))
        return (
            f"{where}: the loss or the gradients of {len(self._skipped)} steps in a row are NaN or "
            f"infinite; these steps were skipped. Check the annotations of {named}{more}, or try a "
            "lower TRAIN.LR or a warm-up (TRAIN.WARMUP_ITERS)"
        )


def check_weights(network: torch.nn.Module, path: object) -> None:
    """Raise InputError if a weight is NaN or infinite, before it is written to ``path``.

    With several processes, every process must call this.
    """
    floats = [v for v in network.state_dict().values() if v.is_floating_point()]
    is_finite = torch.stack([value.isfinite().all() for value in floats]).all()
    if distributed.any_of(not is_finite):
        raise InputError(
            f"{path}: not written, because the weights contain NaN or infinite values; the "
            "previous file is kept. Try a lower TRAIN.LR or a warm-up (TRAIN.WARMUP_ITERS)"
        )
