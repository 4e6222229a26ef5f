"""The optimisers alone, for a training loop of your own: ``from curvebench.torch import MFAC``.

These are the classes that the benchmark runs, not copies of them. All arguments but the first are keyword-only, and all
are ordinary ``torch.optim.Optimizer`` objects, or preconditioners that wrap one.
"""

from __future__ import annotations

from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.methods.cma_es_torch import CMAES
from curvebench.methods.conjugate_gradient_torch import ConjugateGradient
from curvebench.methods.dct_adamw_torch import DCTAdamW
from curvebench.methods.deepzero_torch import DeepZero
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.eva_torch import Eva
from curvebench.methods.forward_gradient_torch import ForwardGradient
from curvebench.methods.gns_torch import GNS
from curvebench.methods.gradual_pruning_torch import MFACPruning
from curvebench.methods.hessian_free_torch import HessianFree
from curvebench.methods.hizoo_torch import HiZOO
from curvebench.methods.kfac_torch import KFAC
from curvebench.methods.lamb_torch import LAMB
from curvebench.methods.levenberg_marquardt_torch import LevenbergMarquardt
from curvebench.methods.lozo_torch import LOZO
from curvebench.methods.mezo_momentum_torch import MeZOMomentum
from curvebench.methods.mezo_torch import MeZO
from curvebench.methods.mfac_pruning_torch import MFACPruner
from curvebench.methods.mfac_torch import MFAC
from curvebench.methods.mkor_h_torch import MKORH
from curvebench.methods.mkor_torch import MKOR
from curvebench.methods.muon_torch import Muon
from curvebench.methods.newton_torch import DiagonalNewton, Newton
from curvebench.methods.orthograd_torch import OrthoGrad
from curvebench.methods.sophia_h_torch import SophiaH
from curvebench.methods.tract_torch import TrAct
from curvebench.methods.zo_adam_torch import ZOAdam
from curvebench.methods.zo_cge_torch import ZOCGE
from curvebench.methods.zo_sgd_torch import ZOSGD
from curvebench.methods.zo_sign_torch import ZOSign

__all__ = [
    "CMAES",
    "EKFAC",
    "GNS",
    "KFAC",
    "LAMB",
    "LOZO",
    "MFAC",
    "MKOR",
    "MKORH",
    "ZOCGE",
    "ZOSGD",
    "AdaHessian",
    "ConjugateGradient",
    "DCTAdamW",
    "DeepZero",
    "DiagonalNewton",
    "Eva",
    "ForwardGradient",
    "HessianFree",
    "HiZOO",
    "LevenbergMarquardt",
    "MFACPruner",
    "MFACPruning",
    "MeZO",
    "MeZOMomentum",
    "Muon",
    "Newton",
    "OrthoGrad",
    "SophiaH",
    "TrAct",
    "ZOAdam",
    "ZOSign",
]
