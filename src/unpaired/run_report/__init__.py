"""The report of one or several runs: what they make, how they got there, what their encoders find significant."""

from unpaired.run_report.figures import write_figures
from unpaired.run_report.folders import RunFolder, choose_images, find_partners, held_out_images, read_runs
from unpaired.run_report.page import PAGE_LIMIT, Page, write_page
from unpaired.run_report.pictures import Gallery, look

__all__ = [
    "PAGE_LIMIT",
    "Gallery",
    "Page",
    "RunFolder",
    "choose_images",
    "find_partners",
    "held_out_images",
    "look",
    "read_runs",
    "write_figures",
    "write_page",
]
