"""`client.admin`: topics, partitions, records, configs, groups, offsets, cluster, log dirs."""

from __future__ import annotations

from trioq.client.admin_cluster import ClusterAdmin
from trioq.client.admin_groups import GroupAdmin
from trioq.client.admin_partitions import PartitionAdmin
from trioq.client.admin_topics import TopicAdmin


class Admin(TopicAdmin, PartitionAdmin, ClusterAdmin, GroupAdmin):
    """Everything about the cluster that is neither producing nor consuming.

    Every call goes to the broker that is responsible, retries what may pass, and raises the
    broker's error with what was asked for. A call whose answer was lost may have been carried out.
    """
