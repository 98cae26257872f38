#!/bin/sh
# Tells what dhclient is told.
env >"$NOVA_TEST_TOLD.new" && mv "$NOVA_TEST_TOLD.new" "$NOVA_TEST_TOLD"
