package ringmail.lab;

import org.apache.ignite.Ignition;

/**
 * Loads the classes that a node and a client use, so that the JVM can archive them when it exits (class data sharing).
 *
 * Two nodes on two loopback addresses form a ring and serve one client: what joining, caches and the thin protocol need is loaded.
 * Argument: {@code work=}.
 */
public final class Train {
    private static final long LOAD_MILLIS = 1000;

    private Train() {
    }

    /** Runs the rehearsal and exits in order, which is when the archive is written. */
    public static void main(String[] args) throws Exception {
        Control.reserveStdout();
        String work = Control.argument(args, "work", null);
        for (String host : new String[] {"127.0.0.1", "127.0.0.2"}) {
            Ignition.start(Node.configuration(new String[] {
                "name=" + host, "host=" + host, "addresses=127.0.0.1,127.0.0.2", "work=" + work}));
        }
        String[] cache = {"cache=keys", "addresses=127.0.0.1:10800,127.0.0.2:10800", "threads=1"};
        Load.connect(cache);
        Load.create(cache);
        Load.fill(cache);
        Load.verify(cache);
        Load.run(cache);
        Thread.sleep(LOAD_MILLIS);
        Load.halt();
        Ignition.stopAll(true);
        System.exit(0);
    }
}
