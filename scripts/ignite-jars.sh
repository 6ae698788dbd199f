#!/usr/bin/env bash
# Puts an Apache Ignite installation of Maven Central's jars into a folder, laid out as its binary archive: what is always on
# the class path in libs, the rest by name in libs/optional, and the lab's own client in lab. Cached by what it is made of.
#   scripts/ignite-jars.sh VERSION FOLDER
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly VERSION=$1 TARGET=$2
readonly COPY_DEPENDENCIES=org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies
readonly ALWAYS=(ignite-core ignite-spring ignite-indexing)
readonly OPTIONAL=(ignite-kubernetes ignite-rest-http)
# The doors into the JDK that Ignite needs are listed where the lab starts its own nodes.
readonly OPTIONS_SOURCE=lab/src/ignite/jvm.rs

hash=$(cat scripts/ignite-jars.sh lab/java/ringmail/lab/*.java "$OPTIONS_SOURCE" | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ringmail
installation=$cache/ignite-image-$VERSION-$hash
mkdir -p "$cache"
exec 9>"$cache/ignite-image.lock"
flock 9

# fetch FOLDER ARTIFACT...: these with all they need.
fetch() {
    local folder=$1 artifact dependencies=
    shift
    for artifact in "$@"; do
        dependencies+="<dependency><groupId>org.apache.ignite</groupId><artifactId>$artifact</artifactId><version>$VERSION</version></dependency>"
    done
    mkdir -p "$folder"
    cat >"$folder/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>ringmail</groupId><artifactId>image</artifactId><version>1</version>
<dependencies>$dependencies</dependencies></project>
XML
    persistently mvn -q -B -f "$folder/pom.xml" "$COPY_DEPENDENCIES" -DincludeScope=runtime "-DoutputDirectory=$folder"
    rm "$folder/pom.xml"
}

make_installation() {
    local artifact jar partial=$installation.partial
    rm -rf "$partial"
    mkdir -p "$partial"/{bin,config,lab,work}
    chmod 777 "$partial/work"
    fetch "$partial/libs" "${ALWAYS[@]}"
    for artifact in "${OPTIONAL[@]}"; do
        fetch "$partial/libs/optional/$artifact" "$artifact"
        # What is on the class path anyway would only be there twice.
        for jar in "$partial/libs/optional/$artifact"/*.jar; do
            if [[ -e $partial/libs/$(basename "$jar") ]]; then
                rm "$jar"
            fi
        done
    done
    grep -o '"--add-opens=[^"]*"' "$OPTIONS_SOURCE" | tr -d '"' >"$partial/bin/java-options"
    cat >"$partial/config/default-config.xml" <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<beans xmlns="http://www.springframework.org/schema/beans"
       xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
       xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd">
    <bean id="grid.cfg" class="org.apache.ignite.configuration.IgniteConfiguration"/>
</beans>
XML
    javac --release 17 -cp "$partial/libs/*" -d "$partial/classes" lab/java/ringmail/lab/*.java
    jar cf "$partial/lab/lab.jar" -C "$partial/classes" .
    rm -r "$partial/classes"
    mv "$partial" "$installation"
}

if [[ ! -d $installation ]]; then
    echo "fetching ignite $VERSION from maven central" >&2
    make_installation >&2
fi
cp -r "$installation" "$TARGET"
