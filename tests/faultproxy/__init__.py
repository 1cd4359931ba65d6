"""A strict and spiteful vCenter: sits before vcsim, loses answers on command, and refuses what a real one refuses."""

from tests.faultproxy.proxy import FaultProxy
from tests.faultproxy.rules import Late, Rules, SoapFault, no_permission
from tests.faultproxy.sending import Trickle

__all__ = ["FaultProxy", "Late", "Rules", "SoapFault", "Trickle", "no_permission"]
