"""A finished run as one HTML page that needs nothing else, and as pictures."""

from dynabert_jax.page.document import write_page as write_page
from dynabert_jax.page.facts import ReportError as ReportError
from dynabert_jax.page.facts import facts as facts
from dynabert_jax.page.pictures import write_pictures as write_pictures
from dynabert_jax.page.walk import Reported as Reported
from dynabert_jax.page.walk import report_run as report_run
