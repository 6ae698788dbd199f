package ringmail.lab;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAccumulator;
import java.util.function.Supplier;
import org.apache.ignite.client.ClientCache;
import org.apache.ignite.client.ClientConnectionException;

/**
 * Puts and gets without a pause, from several threads, each with keys of its own.
 *
 * Each key's version grows with each put. A get must never show less than the last put that was acknowledged, and never more
 * than the last one tried: an acknowledged write that is gone is a lost key, whatever the ring went through.
 */
final class ContinuousLoad {
    /** Longer than any exchange of a small ring's partitions takes. */
    private static final long LATE_AT_MOST_NANOS = 5_000_000_000L;

    /** Between two tries of an operation: about what a client needs to learn that a node has left. */
    private static final long REPEAT_MILLIS = 100;

    private final ClientCache<Long, byte[]> cache;
    private final int threads;
    private final int repeats;
    private final int keys;
    private final int bytes;
    private final long from;
    private final long[] acknowledged;
    private final long[] tried;
    private final List<Thread> workers = new ArrayList<>();
    private final AtomicLong operations = new AtomicLong();
    private final AtomicLong errors = new AtomicLong();
    private final AtomicLong repeated = new AtomicLong();
    private final AtomicLong stale = new AtomicLong();
    private final LongAccumulator slowestMicros = new LongAccumulator(Long::max, 0);
    private final AtomicReference<String> firstError = new AtomicReference<>("none");
    private final AtomicReference<String> firstStale = new AtomicReference<>("none");
    private volatile boolean halted;

    ContinuousLoad(ClientCache<Long, byte[]> cache, String[] args) {
        this.cache = cache;
        threads = Integer.parseInt(Control.argument(args, "threads", "2"));
        keys = Integer.parseInt(Control.argument(args, "keys", "200"));
        repeats = Integer.parseInt(Control.argument(args, "repeats", "0"));
        bytes = Integer.parseInt(Control.argument(args, "bytes", "100"));
        from = Long.parseLong(Control.argument(args, "from", "1000000"));
        acknowledged = new long[threads * keys];
        tried = new long[threads * keys];
    }

    void start() {
        for (int thread = 0; thread < threads; thread++) {
            int first = thread * keys;
            workers.add(new Thread(() -> work(first), "load-" + thread));
        }
        Thread reporter = new Thread(this::report, "load-report");
        reporter.setDaemon(true);
        workers.forEach(Thread::start);
        reporter.start();
    }

    boolean halted() {
        return halted;
    }

    String progress() {
        return "operations=" + operations + " errors=" + errors + " repeated=" + repeated + " stale=" + stale
            + " slowest_us=" + slowestMicros.get() + " first_error=" + firstError.get().replace(' ', '_').replace('\n', '_')
            + " first_stale=" + firstStale.get();
    }

    /** The progress so far; the slowest operation is counted anew from here. */
    String mark() {
        String progress = progress();
        slowestMicros.reset();
        return progress;
    }

    /** Ends the load and waits for the operations under way. */
    String halt() throws InterruptedException {
        halted = true;
        for (Thread worker : workers)
            worker.join();
        return progress();
    }

    /** After {@link #halt}: compares every key with what was acknowledged. */
    String check() {
        long found = 0;
        long lost = 0;
        long corrupt = 0;

        for (int slot = 0; slot < acknowledged.length; slot++) {
            if (acknowledged[slot] == 0)
                continue;
            byte[] value = cache.get(from + slot);
            long version = value == null ? 0 : Value.version(from + slot, value);
            if (version < 0)
                corrupt++;
            else if (version < acknowledged[slot] || version > tried[slot])
                lost++;
            else
                found++;
        }
        return "found=" + found + " lost=" + lost + " corrupt=" + corrupt;
    }

    private void work(int first) {
        for (long round = 0; !halted; round++) {
            int slot = first + (int)(round % keys);
            long start = System.nanoTime();
            try {
                putAndGet(slot);
                operations.addAndGet(2);
            } catch (RuntimeException e) {
                errors.incrementAndGet();
                if (firstError.compareAndSet("none", e.toString()))
                    e.printStackTrace();
                pause(10);
            }
            slowestMicros.accumulate((System.nanoTime() - start) / 1000);
        }
    }

    private void putAndGet(int slot) {
        long key = from + slot;
        tried[slot]++;
        byte[] put = Value.of(key, tried[slot], bytes);
        repeatedly(() -> {
            cache.put(key, put);
            return null;
        });
        acknowledged[slot] = tried[slot];
        byte[] value = repeatedly(() -> cache.get(key));
        if (!shows(key, value, acknowledged[slot])) {
            stale.incrementAndGet();
            firstStale.compareAndSet("none", key + ":" + acknowledged[slot] + ":" + shown(key, value) + ":" + untilShown(slot));
        }
    }

    /**
     * Ignite's client tries an operation about as often as it knows nodes, and may spend all of it on the one that leaves: where
     * nodes are replaced, applications try again.
     */
    private <T> T repeatedly(Supplier<T> operation) {
        for (int repeat = 0; ; repeat++) {
            try {
                return operation.get();
            } catch (ClientConnectionException e) {
                if (repeat >= repeats)
                    throw e;
                repeated.incrementAndGet();
                pause(REPEAT_MILLIS);
            }
        }
    }

    private static boolean shows(long key, byte[] value, long version) {
        return value != null && Value.version(key, value) >= version;
    }

    private static String shown(long key, byte[] value) {
        return value == null ? "nothing" : Long.toString(Value.version(key, value));
    }

    /** How long a key goes on showing less than was acknowledged: a write that comes late is another fault than one that is lost. */
    private String untilShown(int slot) {
        long key = from + slot;
        long start = System.nanoTime();
        while (System.nanoTime() - start < LATE_AT_MOST_NANOS) {
            if (shows(key, cache.get(key), acknowledged[slot]))
                return "shown_after_" + (System.nanoTime() - start) / 1_000_000 + "_ms";
            pause(10);
        }
        return "not_shown";
    }

    private void report() {
        while (!halted) {
            pause(1000);
            Control.event(System.currentTimeMillis(), "LOAD " + progress());
        }
    }

    private static void pause(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
