"""A linear classifier of the frozen backbone's features, without training: the floor of every comparison."""

from typing import ClassVar

from semiseg.contracts.dataset import Split
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Network
from semiseg.declare import record
from semiseg.engine.linear_probe import ProbeFit, ProbeSettings, require_linear
from semiseg.settings import Other


@record
class Probe(ProbeSettings):
    """Fit a linear discriminant to the joined maps of the pretrained backbone, in closed form."""

    probe: Other = None
    """Network that is fitted: the run's backbone with a linear decoder of its last three maps, whatever ``model`` is,
    unless another is given (``method.probe.model=light``)."""

    needs_unlabeled: ClassVar[bool] = False

    def check_split(self, split: Split) -> None:
        """Require unlabeled images for self-training; raises ``UserError`` without any."""
        if self.rounds:
            split.require_unlabeled("probe", never_labeled=True)

    def run(self, lab: Lab) -> Network:
        """Fit one network and return it."""
        network = lab.network("model", role="probe")
        require_linear(network, "method=probe")
        fit = ProbeFit(lab, network, self)
        return lab.compute("probe", network, fit.gather, fit.finish)
