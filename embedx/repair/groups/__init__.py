"""Few-shot repair of the groups that a head fails: k images of each group, and the head that there is.

`repair_groups` is the whole of it.
"""

from embedx.repair.groups.page import publish_groups as publish_groups
from embedx.repair.groups.repair import RepairedGroups as RepairedGroups
from embedx.repair.groups.repair import repair_groups as repair_groups
from embedx.repair.groups.settings import GroupRepairSettings as GroupRepairSettings
