"""Q: from demand, capacity and the traffic table to time: JCT, TTFT, TTST, TPOT, capacity."""

from dpplan.queueing.constants import CONSTANTS, Constants
from dpplan.queueing.costs import Scenario, Tables, scenario, stack
from dpplan.queueing.offline import Offline, run_offline
from dpplan.queueing.online import Online, largest_rate, run_online
from dpplan.queueing.stations import Stations, stations
from dpplan.queueing.systems import SYSTEMS, System

__all__ = [
    "CONSTANTS",
    "SYSTEMS",
    "Constants",
    "Offline",
    "Online",
    "Scenario",
    "Stations",
    "System",
    "Tables",
    "largest_rate",
    "run_offline",
    "run_online",
    "scenario",
    "stack",
    "stations",
]
