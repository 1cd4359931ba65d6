"""A strict and spiteful vCenter: sits before vcsim, loses answers on command, and refuses what a real one refuses."""

from tests.faultproxy.proxy import FaultProxy
from tests.faultproxy.rules import Rules, SoapFault, no_permission

__all__ = ["FaultProxy", "Rules", "SoapFault", "no_permission"]
