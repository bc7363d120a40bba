"""Learning without recurrence: the teacher, the objectives and the loop."""

from smt_hf.runs.arguments import SMTPretrainingArguments
from smt_hf.runs.spec import RunSpec

from .assembly import build
from .configuration_teacher import SMTTeacherConfig
from .teacher import SMTTeacher
from .trainer import SMTPretrainer

__all__ = ["RunSpec", "SMTPretrainer", "SMTPretrainingArguments", "SMTTeacher", "SMTTeacherConfig", "build"]
