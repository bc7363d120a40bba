"""Learning without recurrence: the teacher, the objectives and the loop."""

from .arguments import SMTPretrainingArguments
from .teacher import SMTTeacher, SMTTeacherConfig
from .trainer import SMTPretrainer

__all__ = ["SMTPretrainer", "SMTPretrainingArguments", "SMTTeacher", "SMTTeacherConfig"]
