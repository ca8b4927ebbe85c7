"""Few-shot repair of a linear head: a few images of what it gets wrong, one image of each of N classes, and no more.

`repair_head` mends a concept, `repair_groups` groups. After "rainbow cows" (K. Evtimova and C. Resnick) without its
flaws: the concept that stops the descent is not the one that is reported, several seeds, intervals, and a control.
"""

from embedx.repair.groups import GroupRepairSettings as GroupRepairSettings
from embedx.repair.groups import RepairedGroups as RepairedGroups
from embedx.repair.groups import publish_groups as publish_groups
from embedx.repair.groups import repair_groups as repair_groups
from embedx.repair.page import publish as publish
from embedx.repair.repair import Repaired as Repaired
from embedx.repair.repair import repair_head as repair_head
from embedx.repair.settings import RepairSettings as RepairSettings
from embedx.repair.settings import Restraint as Restraint
