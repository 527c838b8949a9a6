"""Control groups by their old name; see packager.cgroup."""

from packager.cgroup import Group, groups

__all__ = ["Group", "groups"]
