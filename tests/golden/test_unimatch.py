"""FixMatch, UniMatch and UniMatch V2 against numbers of the original programs: losses and trainings of five steps."""

import hashlib
import random
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import unimatch_inputs as given
from noise_fill import complementary_masks
from torch import Tensor, nn

from semiseg.contracts.training import Progress
from semiseg.data.mix_box import MixBox
from semiseg.data.paired_lists import lengthened
from semiseg.engine.ema import EMASettings
from semiseg.engine.optim import SGD, AdamW
from semiseg.methods.fixmatch import FixMatch, FixMatchLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.supervised import SupervisedLearner
from semiseg.methods.unimatch import UniMatch, UniMatchLearner
from semiseg.methods.unimatch_v2 import UniMatchV2, UniMatchV2Learner
from semiseg.models.segmodel import SegModel

V1: dict[str, Any] = {"teacher": "student_train", "partner": "same_images"}
V2: dict[str, Any] = {"ema_buffers": "average_truncate"}


class Case(NamedTuple):
    """Size, threshold, amplitude and salt of one recorded iteration, its boxes and padding."""

    classes: int
    known: int
    unknown: int
    size: tuple[int, int]
    threshold: float
    amplitude: float
    salt: int
    box_1: given.Boxes
    box_2: given.Boxes
    padding: list[tuple[int, int]]
    partner_padding: list[tuple[int, int]]


CASES = {
    "base": Case(
        5,
        2,
        3,
        (11, 14),
        0.95,
        8,
        10,
        [(2, 3, 6, 5), None, (0, 1, 8, 9)],
        [(1, 0, 10, 7), (4, 4, 3, 9), None],
        [(0, 2), (0, 0), (4, 0)],
        [(2, 0), (0, 0), (1, 3)],
    ),
    "city": Case(
        19,
        2,
        2,
        (10, 8),
        0,
        5,
        20,
        [(1, 1, 5, 4), (3, 0, 7, 8)],
        [None, (0, 2, 6, 5)],
        [(0, 0), (2, 0)],
        [(0, 1), (0, 0)],
    ),
    "tie": Case(
        4,
        1,
        2,
        (5, 6),
        0.5,
        1,
        30,
        [None, (1, 0, 3, 4)],
        [(0, 2, 4, 3), None],
        [(0, 1), (0, 0)],
        [(1, 0), (0, 0)],
    ),
    "padded": Case(
        5,
        2,
        2,
        (6, 9),
        0.9,
        7,
        40,
        [(0, 0, 6, 9), None],
        [(2, 2, 3, 4), (0, 0, 3, 9)],
        [(6, 0), (0, 0)],
        [(0, 0), (6, 0)],
    ),
    "one": Case(3, 1, 1, (5, 6), 0.6, 3, 50, [(0, 1, 4, 3)], [(2, 0, 3, 6)], [(0, 2)], [(1, 0)]),
    "none": Case(
        5, 2, 2, (6, 6), 0.999999, 1, 60, [(0, 0, 3, 3), None], [None, None], [(0, 0)] * 2, [(0, 0)] * 2
    ),
    "void": Case(4, 1, 1, (3, 5), 0.5, 4, 70, [None], [None], [(3, 0)], [(3, 0)]),
}

# Of each case: L_x; V1 s1, s2, fp; V1 total; V1 gradients of x, s1, s2, fp; V2 s1, s2; V2 total; V2 gradients of s1,
# s2; totals of FixMatch in V1 and V2; share of the pixels that are used.
EXPECTED: dict[str, list[float]] = {
    "base": [
        5.423183767,
        0.9033913040,
        1.114554598,
        0.9528141204,
        3.202038651,
        0.8054850623,
        0.03875025732,
        0.04070605015,
        0.08187875960,
        0.9942460428,
        0.9960638255,
        3.209169350,
        0.08176821505,
        0.07522558966,
        3.163287535,
        3.208714905,
        0.1979166667,
    ],
    "city": [
        5.357719585,
        5.542954632,
        5.809801641,
        5.436384274,
        5.457050395,
        0.9468736811,
        0.2361906027,
        0.2409714079,
        0.4715129390,
        5.725944301,
        5.700784054,
        5.535541881,
        0.4766553299,
        0.4803212053,
        5.450337108,
        5.541831943,
        1.0,
    ],
    "tie": [
        1.489388351,
        1.017483349,
        1.021910261,
        1.054222784,
        1.263174073,
        0.7452214969,
        0.1278621917,
        0.1284132025,
        0.2592147377,
        1.054670636,
        0.9489952397,
        1.245610645,
        0.2600818123,
        0.2467648400,
        1.253435850,
        1.272029494,
        0.6909090909,
    ],
    "padded": [
        5.124297629,
        2.201020444,
        3.191540566,
        2.419086739,
        3.840990625,
        0.8203479287,
        0.09711733978,
        0.1114767747,
        0.1933708164,
        2.045990008,
        3.081217050,
        3.843950579,
        0.1785928914,
        0.2211348534,
        3.662659037,
        3.585143818,
        0.5,
    ],
    "one": [
        1.563864287,
        1.598822940,
        1.407894000,
        1.204672073,
        1.458939779,
        0.6433906837,
        0.1450659394,
        0.1400732129,
        0.2668728427,
        1.907868946,
        1.423597913,
        1.614798858,
        0.3369912656,
        0.2767507036,
        1.581343613,
        1.735866617,
        0.8,
    ],
    "none": [
        1.764482168,
        *(0.0,) * 3,
        0.8822410838,
        0.8070021483,
        *(0.0,) * 5,
        0.8822410838,
        *(0.0,) * 2,
        *(0.8822410838,) * 2,
        0.0,
    ],
}


class Scripted(SegModel):
    """A network that answers with prepared logits, in the order of its passes."""

    def __init__(self, classes: int) -> None:
        decoder = given.Fused(given.TwoMaps.stages)
        super().__init__(given.TwoMaps(), decoder, decoder.make_classifier(classes), classes)
        self.answers: deque[Tensor] = deque()

    def encode(self, images: Tensor) -> list[Tensor]:
        return [images]

    def decode(self, maps: Any) -> Tensor:
        features: Tensor = maps[0]
        return features

    def classify(self, features: Tensor, size: Any) -> Tensor:
        answer = self.answers.popleft()
        assert len(answer) == len(features)
        return answer


class Outputs(NamedTuple):
    """Prepared logits of labeled, weak, partner's weak, strong 1 and 2, and perturbed images."""

    x: Tensor
    w: Tensor
    partner: Tensor
    s1: Tensor
    s2: Tensor
    fp: Tensor


def outputs(case: Case) -> Outputs:
    counts = (case.known, *(case.unknown,) * 5)
    made = [
        given.logits(count, case.classes, *case.size, case.salt + index, case.amplitude)
        for index, count in enumerate(counts)
    ]
    if case is CASES["tie"]:
        h, w = case.size
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        for index, away in ((1, slice(2, None)), (2, slice(0, 2))):
            tied = torch.zeros(case.unknown, 4, h, w, dtype=torch.float64)
            tied[:, away] = torch.where((y + x) % 2 == 0, -1000.0, 0.0).double()
            tied[:, 2] = torch.where(((y + x) % 2 == 1) & (x % 3 == 0), 40.0, tied[:, 2])
            made[index] = tied
    return Outputs(*(each.requires_grad_() for each in made))


def case_batch(case: Case) -> dict[str, Any]:
    h, w = case.size
    n, s = case.unknown, case.salt
    own = {"image": given.images(n, h, w, s + 1), "valid": given.valid(case.padding, h, w)}
    partner = {"image": given.images(n, h, w, s + 4), "valid": given.valid(case.partner_padding, h, w)}
    for view, boxes in ((1, case.box_1), (2, case.box_2)):
        own |= {f"strong_{view}": given.images(n, h, w, s + 1 + view), f"box_{view}": given.box_rows(boxes)}
        partner[f"strong_{view}"] = given.images(n, h, w, s + 4 + view)
    known = {
        "image": given.images(case.known, h, w, s),
        "label": given.labels(case.known, h, w, case.classes, s),
    }
    return {"labeled": known, "unlabeled": own, "partner": partner}


def loss_of(name: str) -> dict[str, Any]:
    return {"loss": "ohem", "ohem_min_kept": 60} if name == "city" else {}


def near(value: Tensor | float, relative: float = 1e-9) -> Any:
    return pytest.approx(float(value), rel=relative, abs=1e-12)


def run(learner: Any, case: Case, *answers: Tensor) -> Any:
    batch = case_batch(case)
    if learner.method.partner == "reversed":
        del batch["partner"]
    learner.model.answers.extend(answers)
    if learner.average is not None:
        learner.average.teacher.answers.append(learner.model.answers.popleft())
    result = learner(batch, Progress(0, 1, 0, 0))
    assert not learner.model.answers
    return result


def gradients(loss: Tensor, *logits: Tensor) -> list[float]:
    found = torch.autograd.grad(loss, logits)
    return [float(each.abs().sum()) for each in found]


@pytest.mark.golden("UniMatch losses")
@pytest.mark.parametrize("name", EXPECTED)
def test_losses_of_unimatch(name: str) -> None:
    case, expected, made = CASES[name], EXPECTED[name], outputs(CASES[name])
    method = UniMatch(threshold=case.threshold, **V1, **loss_of(name))
    learner = UniMatchLearner(Scripted(case.classes), method, LabeledLoss(method))
    doubled = torch.cat([made.x, made.w, torch.zeros_like(made.x), made.fp])
    found = run(learner, case, made.partner, doubled, torch.cat([made.s1, made.s2]))
    terms = [found.losses[key].mean for key in ("labeled", "strong_1", "strong_2", "features")]
    assert [float(each.detach()) for each in (*terms, found.total)] == near_list(expected[:5])
    assert gradients(found.total, made.x, made.s1, made.s2, made.fp) == near_list(expected[5:9])
    assert float(found.scalars["unlabeled_used"]) == near(expected[16], 1e-7)


@pytest.mark.golden("UniMatch losses")
@pytest.mark.parametrize("name", EXPECTED)
def test_losses_of_unimatch_v2(name: str) -> None:
    case, expected, made = CASES[name], EXPECTED[name], outputs(CASES[name])
    method = UniMatchV2(threshold=case.threshold, **V2, **loss_of(name))
    learner = UniMatchV2Learner(Scripted(case.classes), method, LabeledLoss(method))
    found = run(learner, case, made.w, made.x, torch.cat([made.s1, made.s2]))
    strong = [float(found.losses[key].mean.detach()) for key in ("strong_1", "strong_2")]
    assert [*strong, float(found.total.detach())] == near_list(expected[9:12])
    assert gradients(found.total, made.s1, made.s2) == near_list(expected[12:14])


@pytest.mark.golden("UniMatch losses")
@pytest.mark.parametrize("name", EXPECTED)
def test_losses_of_fixmatch(name: str) -> None:
    case, expected = CASES[name], EXPECTED[name]
    made = outputs(case)
    method = FixMatch(threshold=case.threshold, **V1, **loss_of(name))
    learner = FixMatchLearner(Scripted(case.classes), method, LabeledLoss(method))
    found = run(learner, case, made.partner, torch.cat([made.x, made.w]), made.s1)
    assert float(found.total.detach()) == near(expected[14])
    assert float(found.losses["strong"].mean.detach()) == near(expected[1])
    method = FixMatch(threshold=case.threshold, **loss_of(name))
    learner = FixMatchLearner(Scripted(case.classes), method, LabeledLoss(method))
    found = run(learner, case, made.w, torch.cat([made.x, made.s1]))
    assert float(found.total.detach()) == near(expected[15])


@pytest.mark.golden("UniMatch losses")
@pytest.mark.parametrize("empty", ["nan", "zero"])
def test_a_batch_of_padding_alone(empty: Any) -> None:
    case, made = CASES["void"], outputs(CASES["void"])
    method = UniMatchV2(threshold=case.threshold, empty_valid=empty)
    learner = UniMatchV2Learner(Scripted(case.classes), method, LabeledLoss(method))
    found = run(learner, case, made.w, made.x, torch.cat([made.s1, made.s2]))
    assert float(found.losses["labeled"].mean.detach()) == near(3.122722392)
    assert bool(found.total.isnan()) == (empty == "nan")
    if empty == "zero":
        assert float(found.total.detach()) == near(3.122722392 / 2)


def near_list(values: list[float], relative: float = 1e-9) -> Any:
    return pytest.approx(values, rel=relative, abs=1e-12)


class Trace(NamedTuple):
    """Settings of a recorded training."""

    n: int
    size: tuple[int, int]
    threshold: float
    rate: float
    multiplier: float
    steps: int
    start: int
    gain: float
    salt: int


SHORT = {"n": 2, "size": (24, 28), "threshold": 0.7, "steps": 16, "start": 0, "gain": 4.0}
TRACES = {
    "v1_fixmatch": Trace(**SHORT, rate=0.02, multiplier=5, salt=100),
    "v1_unimatch": Trace(**SHORT, rate=0.02, multiplier=5, salt=150),
    "v2_fixmatch": Trace(**SHORT, rate=0.0005, multiplier=40, salt=250),
    "v2_unimatch": Trace(**SHORT, rate=0.0005, multiplier=40, salt=300),
    "v2_unimatch_late": Trace(4, (20, 24), 0.6, 0.0005, 40, 300, 247, 4.0, 350),
    "v1_supervised": Trace(**SHORT | {"n": 4, "gain": 1.0}, rate=0.02, multiplier=5, salt=200),
    "v2_supervised": Trace(**SHORT | {"n": 4, "gain": 1.0}, rate=0.0005, multiplier=40, salt=400),
}


def trained(name: str) -> tuple[Any, list[Any]]:
    """Do the five recorded steps; return the learner and what they returned."""
    trace = TRACES[name]
    model = given.tiny(5, trace.gain)
    learner = learner_of(name, model, trace)
    spec: Any = (
        SGD(lr=trace.rate, head_multiplier=trace.multiplier)
        if name.startswith("v1")
        else AdamW(lr=trace.rate, head_multiplier=trace.multiplier, decay="all")
    )
    optimizer = spec.build(learner.param_groups(spec))
    if getattr(learner, "average", None) is not None:
        learner.average.updates.fill_(trace.start)
    found = []
    for step in range(5):
        learner.step = step
        batch = given.step_batch(
            step, n=trace.n, h=trace.size[0], w=trace.size[1], classes=5, salt=trace.salt
        )
        if "supervised" in name:
            batch = {"labeled": batch["labeled"]}
        elif name.startswith("v2"):
            del batch["partner"]
        output = learner(batch, Progress(trace.start + step, trace.steps, 0, 0))
        optimizer.zero_grad()
        output.total.backward()
        # The published rate of a step is that of the index before it; the first step has the base rate.
        factor = (1 - (trace.start + step - 1) / trace.steps) ** 0.9 if step else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        learner.after_step(Progress(step, trace.steps, 0, 0))
        found.append(output)
    return learner, found


def learner_of(name: str, model: SegModel, trace: Trace) -> Any:
    class WithMasks(UniMatchLearner):
        step = 0

        def feature_masks(self, maps: Any, progress: Progress) -> list[Tensor]:
            return [given.feature_masks(len(maps[0]), self.step, which) for which in (0, 1)]

    class WithMasksV2(UniMatchV2Learner):
        step = 0

        def feature_masks(self, maps: Any, progress: Progress) -> list[Tensor]:
            return [complementary_masks(len(maps[0]) // 2, 8, self.step)] * 2

    kinds: dict[str, tuple[Any, Any]] = {
        "v1_fixmatch": (FixMatchLearner, FixMatch(threshold=trace.threshold, **V1)),
        "v1_unimatch": (WithMasks, UniMatch(threshold=trace.threshold, **V1)),
        "v2_fixmatch": (FixMatchLearner, FixMatch(threshold=trace.threshold, **V2)),
        "v2_unimatch": (WithMasksV2, UniMatchV2(threshold=trace.threshold, **V2)),
    }
    if "supervised" in name:
        return SupervisedLearner(model)
    kind, method = kinds[name.removesuffix("_late")]
    return kind(model, method, LabeledLoss(method))


def state(network: nn.Module) -> list[float]:
    """Sums of the backbone's and the head's parameters, plain and absolute, of running means and variances; counter."""
    named = list(network.named_parameters())
    backbone = [each.detach() for name, each in named if name.startswith("backbone")]
    head = [each.detach() for name, each in named if not name.startswith("backbone")]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return [
        *(
            float(sum(function(each).sum() for each in part))
            for part in (backbone, head)
            for function in (torch.clone, torch.abs)
        ),
        float(sum(norm.running_mean.sum() for norm in norms)),
        float(sum(norm.running_var.sum() for norm in norms)),
        float(norms[0].num_batches_tracked),
    ]


LOSSES = {
    "v1_fixmatch": [3.037815895, 2.309134056, 2.085274465, 1.517580604, 1.537967961],
    "v1_unimatch": [2.196678990, 2.184079685, 1.772119286, 1.339316384, 1.254005191],
    "v1_supervised": [2.167153054, 1.917067896, 1.995086518, 1.818758482, 1.833165079],
    "v2_fixmatch": [2.909000002, 2.429648070, 2.336049614, 2.054578495, 2.167598803],
    "v2_unimatch": [3.011637013, 2.534556788, 2.492441248, 1.998498829, 2.055452138],
    "v2_unimatch_late": [3.291875608, 2.503130494, 2.797001940, 2.421781200, 2.530743530],
    "v2_supervised": [2.143480645, 1.860167912, 1.867126286, 1.718002823, 1.788775163],
}
TERMS = {
    ("v1_unimatch", "strong_1"): [0.3788159174, 0.4037054876, 0.3400159787, 0.2345585412, 0.1229607351],
    ("v1_unimatch", "strong_2"): [0.5128273735, 0.6064639702, 0.5034362892, 0.3133121056, 0.2300332532],
    ("v1_unimatch", "features"): [0.7065135482, 1.407415367, 0.3138563276, 0.4219739064, 0.2289919466],
    ("v1_fixmatch", "labeled"): [5.627654218, 4.272463569, 3.913171417, 2.831143789, 2.959539014],
    ("v2_fixmatch", "strong"): [0.5717890820, 0.7928491947, 0.3878133661, 0.4298615187, 0.3186593112],
    ("v2_unimatch", "strong_1"): [0.7815280665, 1.417651574, 0.4327665207, 0.5196033578, 0.2181864980],
    ("v2_unimatch", "strong_2"): [0.6828521969, 0.3255563719, 0.6612778546, 0.4513162818, 0.4934711852],
}
STUDENT = {
    "v1_fixmatch": [12.03106475, 154.1403653, 11.30497530, 260.1015900, 4.295619156, 35.41351360, 10],
    "v1_unimatch": [12.22585577, 154.1214154, 27.64072682, 261.4519802, 5.943532533, 36.20296666, 10],
    "v1_supervised": [12.40550277, 154.0352195, 24.34183314, 197.3833707, 2.694876441, 45.46821861, 5],
    "v2_fixmatch": [12.72190420, 154.0700383, 25.59897374, 265.2877594, 3.173531879, 47.38008994, 5],
    "v2_unimatch": [12.49679472, 154.0595712, 9.276609763, 265.5225531, 3.396197170, 40.02393236, 10],
    "v2_unimatch_late": [12.53962630, 154.0519605, 15.26301336, 260.7447880, 4.079561098, 38.05536846, 10],
    "v2_supervised": [12.47342127, 154.0197655, 13.15386811, 204.4724591, 1.898637009, 46.54540980, 5],
}
TEACHER = {
    "v2_fixmatch": [12.66262684, 154.0572463, 24.62601949, 261.9604006, 1.740197342, 52.94277337, 1],
    "v2_unimatch": [12.50076509, 154.0400560, 12.64613203, 262.0608883, 2.433896239, 46.83551617, 6],
    "v2_unimatch_late": [12.52944712, 154.0183099, 19.71459054, 259.7697452, -0.5559028865, 63.72313484, 0],
}
RATIOS = {
    "v1_fixmatch": [0.7075617, 0.6006441, 0.3872054, 0.2623457, 0.1537842],
    "v1_unimatch": [0.5262346, 0.5595813, 0.3636363, 0.2438272, 0.1030596],
}


@pytest.mark.golden("UniMatch trainings")
@pytest.mark.parametrize("name", TRACES)
def test_five_steps(name: str) -> None:
    learner, found = trained(name)
    assert [float(each.total.detach()) for each in found] == near_list(LOSSES[name], 1e-8)
    for (trace, term), expected in TERMS.items():
        if trace == name:
            means = [float(each.losses[term].mean.detach()) for each in found]
            assert means == near_list(expected, 1e-8)
    assert state(learner.model) == near_list(STUDENT[name], 1e-8)
    if name in TEACHER:
        assert state(learner.average.teacher) == near_list(TEACHER[name], 1e-8)
    if name in RATIOS:
        used = [float(each.scalars["unlabeled_used"]) for each in found]
        assert used == near_list(RATIOS[name], 2e-6)


@pytest.mark.golden("UniMatch trainings")
def test_evaluation_after_the_steps() -> None:
    for name, expected in {
        "v1_fixmatch": (-1983.343401, 3048.913662),
        "v1_unimatch": (-1923.697726, 3137.721996),
    }.items():
        learner, _ = trained(name)
        logits = learner.model.eval()(given.images(1, 24, 28, 3))
        assert [float(logits.detach().sum()), float(logits.detach().abs().sum())] == near_list(
            list(expected), 1e-7
        )


@pytest.mark.golden("UniMatch boxes and lists")
@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (
            321,
            [
                *(None, (68, 50, 233, 78), None, (148, 119, 148, 159), (22, 94, 211, 188), None, None),
                *((23, 185, 112, 44), (86, 63, 188, 192), (251, 56, 67, 36), None, (140, 34, 162, 56)),
            ],
        ),
        (801, [None, (129, 144, 617, 185), None, (422, 119, 369, 398), (58, 393, 730, 340), None]),
        (798, [None, (129, 144, 615, 184), None, (422, 119, 368, 396), (58, 393, 727, 338), None]),
        (518, [None, (129, 144, 344, 138), None, (119, 256, 388, 158), (187, 73, 255, 406), None]),
    ],
)
def test_boxes(side: int, expected: list[Any]) -> None:
    drawn = [
        MixBox()((side, side), random.Random(seed), np.random.RandomState(seed))
        for seed in range(len(expected))
    ]
    assert drawn == [box or (0, 0, 0, 0) for box in expected]


@pytest.mark.golden("UniMatch boxes and lists")
@pytest.mark.parametrize(
    ("counts", "rule", "first", "digest"),
    [
        ((1464, 9118), "sampled_once", [926, 36, 1390, 59, 1306], "d5c840226b48fc08"),
        ((744, 2231), "sampled_once", [231, 375, 347], "96769fdc128cfb74"),
        ((662, 9920), "sampled_once", [264, 176, 66], "5fb117aa07baed7f"),
        ((92, 10490), "shuffled_once", [20, 3, 77, 84, 59], "c6a33204e58e144c"),
        ((1464, 9118), "shuffled_once", [1442, 1213, 988], "c7bae6a6d27a23cb"),
    ],
)
def test_labeled_lists(counts: tuple[int, int], rule: Any, first: list[int], digest: str) -> None:
    known, count = counts
    made = lengthened([str(index) for index in range(known)], count, rule, 2 if rule == "sampled_once" else 0)
    indices = np.array([int(each) for each in made], dtype=np.int64)
    assert indices[: len(first)].tolist() == first
    assert hashlib.sha1(indices.tobytes()).hexdigest()[:16] == digest


@pytest.mark.golden("UniMatch boxes and lists")
def test_repeated_lists_and_decays() -> None:
    assert lengthened("012", 8) == list("01201201")
    assert lengthened("0123", 4) == list("0123")
    assert lengthened("012345678", 5) == list("01234")
    student = nn.Linear(1, 1)
    ema = EMASettings().ema(student)
    for updates, decay in (
        (0, 0.0),
        (1, 0.5),
        (2, 2 / 3),
        (3, 0.75),
        (248, 0.9959839357429718),
        (250, 0.996),
    ):
        ema.updates.fill_(updates)
        ema._count = None
        with torch.no_grad():
            ema.teacher.weight.fill_(1.0)
            student.weight.fill_(0.0)
        ema.update(student)
        assert float(ema.teacher.weight.detach()) == pytest.approx(decay, abs=1e-6)
