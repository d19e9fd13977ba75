"""Store finished files for engines that have no other place: `/media/…`."""
