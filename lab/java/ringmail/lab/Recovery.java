package ringmail.lab;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.ignite.client.ClientCache;

/**
 * Puts and reads back every key in turn, without a pause, and remembers when each was served: what a death in the ring costs a
 * client is told from that afterwards.
 *
 * A key that fails is tried again until it is served, as an application with nothing better to do would.
 */
final class Recovery {
    /** Before a key that failed is tried again. */
    private static final long RETRY_MILLIS = 1;

    private final ClientCache<Long, byte[]> cache;
    private final int keys;
    private final int bytes;
    private final long from;
    private final List<Worker> workers = new ArrayList<>();
    private final AtomicLong errors = new AtomicLong();
    private final AtomicReference<String> firstError = new AtomicReference<>("none");
    private volatile boolean halted;

    Recovery(ClientCache<Long, byte[]> cache, String[] args) {
        this.cache = cache;
        int threads = Integer.parseInt(Control.argument(args, "threads", "8"));
        keys = Integer.parseInt(Control.argument(args, "keys", "64"));
        bytes = Integer.parseInt(Control.argument(args, "bytes", "100"));
        from = Long.parseLong(Control.argument(args, "from", "0"));
        for (int thread = 0; thread < threads; thread++)
            workers.add(new Worker(thread));
    }

    void start() {
        workers.forEach(Thread::start);
    }

    /**
     * {@code recovery since=<ms>}: after that moment, how many keys were not served yet by an operation begun since, how long
     * it took until all were, and the longest that a thread waited for one to be served.
     */
    String since(long since) {
        long unserved = 0;
        long allServed = 0;
        long longestGap = 0;
        for (Worker worker : workers) {
            long[] first = worker.firstServedSince(since);
            for (long served : first) {
                if (served == Long.MAX_VALUE)
                    unserved++;
                else
                    allServed = Math.max(allServed, served - since);
            }
            longestGap = Math.max(longestGap, worker.longestGapSince(since));
        }
        return "unserved=" + unserved + " all_served_ms=" + allServed + " longest_gap_ms=" + longestGap
            + " errors=" + errors + " first_error=" + firstError.get().replace(' ', '_').replace('\n', '_');
    }

    String halt() throws InterruptedException {
        halted = true;
        for (Worker worker : workers)
            worker.join();
        return "halted";
    }

    /** One thread with keys of its own; its list is asked for from outside while it grows. */
    private final class Worker extends Thread {
        private final long first;
        /** Begin and end of each operation that was served, in order, as wall clock: the k-th is on key k modulo the keys. */
        private long[] served = new long[1 << 12];
        private int length;

        private Worker(int number) {
            super("recovery-" + number);
            first = from + (long)number * keys;
        }

        @Override public void run() {
            for (long round = 0; !halted; round++) {
                long key = first + round % keys;
                long begin = serve(key, round + 1);
                if (begin >= 0)
                    keep(begin, System.currentTimeMillis());
            }
        }

        /** When the try began that was served, or -1 when the load was halted before. */
        private long serve(long key, long version) {
            while (!halted) {
                long begin = System.currentTimeMillis();
                try {
                    cache.put(key, Value.of(key, version, bytes));
                    byte[] read = cache.get(key);
                    if (read == null || Value.version(key, read) != version)
                        throw new IllegalStateException("key " + key + " does not hold what was put");
                    return begin;
                } catch (RuntimeException e) {
                    errors.incrementAndGet();
                    if (firstError.compareAndSet("none", e.toString()))
                        e.printStackTrace();
                    pause();
                }
            }
            return -1;
        }

        private void pause() {
            try {
                Thread.sleep(RETRY_MILLIS);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }

        private synchronized void keep(long begin, long end) {
            if (length == served.length)
                served = Arrays.copyOf(served, 2 * length);
            served[length++] = begin;
            served[length++] = end;
        }

        private synchronized long[] firstServedSince(long since) {
            long[] found = new long[keys];
            Arrays.fill(found, Long.MAX_VALUE);
            for (int index = 0; index < length; index += 2) {
                int key = (index / 2) % keys;
                if (served[index] >= since)
                    found[key] = Math.min(found[key], served[index + 1]);
            }
            return found;
        }

        private synchronized long longestGapSince(long since) {
            long longest = 0;
            for (int index = 3; index < length; index += 2) {
                if (served[index] >= since)
                    longest = Math.max(longest, served[index] - served[index - 2]);
            }
            return longest;
        }
    }
}
