"""A defence as a module of torch; `preshield.as_torch_module` makes one."""

import torch

from ..preprocessor import Preprocessor
from .states import check_for_a_model, load_state, state_of

__all__ = ["DefenceModule"]


class DefenceModule(torch.nn.Module):  # type: ignore[misc]
    """See `preshield.as_torch_module`."""

    def __init__(self, defence: Preprocessor) -> None:
        super().__init__()
        check_for_a_model(defence)
        self.defence = defence

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the defence if it is for this mode."""
        applies = self.defence.apply_fit if self.training else self.defence.apply_predict
        if not applies:
            return x
        out: torch.Tensor = self.defence.transform(x)
        return out.to(x.dtype) if x.is_floating_point() else out

    def extra_repr(self) -> str:
        """The constructor call of the defence."""
        return repr(self.defence)

    def get_extra_state(self) -> torch.Tensor:
        """The state of the defence; a tensor, as users of a `state_dict` expect."""
        return torch.from_numpy(state_of(self.defence))

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Go on from a state."""
        load_state(self.defence, state.cpu().numpy())
