"""A BOINC project to try things with: strict, with a state that survives a restart, for clients as they really are.

It is to projects what the simulated cloud is to clouds. Not a project server: one program, results checked by working
them out anew, and anybody may make an account.
"""

from libs.boinc.demo_project.books import Host, Job, User
from libs.boinc.demo_project.project import DemoProject
from libs.boinc.demo_project.serving import serving

__all__ = ["DemoProject", "Host", "Job", "User", "serving"]
