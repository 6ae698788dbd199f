#!/bin/bash
# Starts a node by the variables that the image apacheignite/ignite knows: OPTION_LIBS, CONFIG_URI, JVM_OPTS, IGNITE_QUIET.
# What is loaded over the network there (EXTERNAL_LIBS) is refused here.
set -euo pipefail

if [[ -n ${EXTERNAL_LIBS:-} ]]; then
    echo "EXTERNAL_LIBS=$EXTERNAL_LIBS: this image downloads nothing" >&2
    exit 1
fi

classpath=${USER_LIBS:+$USER_LIBS:}$IGNITE_HOME/libs/*
IFS=', ' read -r -a options <<<"${OPTION_LIBS:-}"
for option in "${options[@]}"; do
    if [[ ! -d $IGNITE_HOME/libs/optional/$option ]]; then
        echo "OPTION_LIBS names $option: there are $(ls -m "$IGNITE_HOME/libs/optional")" >&2
        exit 1
    fi
    classpath=$IGNITE_HOME/libs/optional/$option/*:$classpath
done

# A node of a test lives for a minute, on two cores with five others: what the second compiler makes faster is hardly reached, and
# its work is done beside everybody's start.
quick=(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData)
read -r -a settings <<<"${JVM_OPTS:--Xms1g -Xmx1g -server -XX:MaxMetaspaceSize=256m}"
if [[ ${IGNITE_QUIET:-} == false ]]; then
    settings+=(-DIGNITE_QUIET=false)
fi

cd "$IGNITE_HOME"
# The JVM is to have the signals of the container.
exec java "@$IGNITE_HOME/bin/java-options" "${quick[@]}" "${settings[@]}" -DIGNITE_HOME="$IGNITE_HOME" -DIGNITE_UPDATE_NOTIFIER=false \
    -cp "$classpath" org.apache.ignite.startup.cmdline.CommandLineStartup "${CONFIG_URI:-config/default-config.xml}"
