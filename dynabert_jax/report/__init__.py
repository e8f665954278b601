"""Reports a finished run as one self-contained HTML page, and as pictures."""

from dynabert_jax.report.document import write_page as write_page
from dynabert_jax.report.facts import ReportError as ReportError
from dynabert_jax.report.facts import facts as facts
from dynabert_jax.report.pictures import write_pictures as write_pictures
from dynabert_jax.report.report import Reported as Reported
from dynabert_jax.report.report import report_run as report_run
