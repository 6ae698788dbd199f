package ringmail.lab;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.ignite.Ignition;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.cache.CacheWriteSynchronizationMode;
import org.apache.ignite.client.ClientCache;
import org.apache.ignite.client.ClientCacheConfiguration;
import org.apache.ignite.client.IgniteClient;
import org.apache.ignite.client.SslMode;
import org.apache.ignite.configuration.ClientConfiguration;
import org.apache.ignite.ssl.SslContextFactory;

/**
 * A Java thin client that serves the lab: fills caches with values that can be checked, keeps a load running, counts what is lost.
 *
 * Verbs: connect, create, fill, verify, big, run, progress, mark, halt, check, nodes, measure, recovering, recovery, recovered, close.
 */
public final class Load {
    private static final int BATCH = 500;

    private static final AtomicReference<IgniteClient> CLIENT = new AtomicReference<>();
    private static final AtomicReference<ContinuousLoad> RUNNING = new AtomicReference<>();
    private static final AtomicReference<Recovery> RECOVERING = new AtomicReference<>();

    private Load() {
    }

    /** Serves requests until the lab goes away. */
    public static void main(String[] args) throws Exception {
        Control.reserveStdout();
        Map<String, Control.Verb> verbs = new HashMap<>();
        verbs.put("connect", Load::connect);
        verbs.put("create", Load::create);
        verbs.put("fill", Load::fill);
        verbs.put("verify", Load::verify);
        verbs.put("big", Load::big);
        verbs.put("run", Load::run);
        verbs.put("progress", a -> RUNNING.get().progress());
        verbs.put("mark", a -> RUNNING.get().mark());
        verbs.put("halt", a -> halt());
        verbs.put("check", a -> RUNNING.get().check());
        verbs.put("nodes", a -> String.valueOf(CLIENT.get().cluster().forServers().nodes().size()));
        verbs.put("measure", a -> Measure.run(cache(a), a));
        verbs.put("recovering", a -> {
            RECOVERING.set(new Recovery(cache(a), a));
            RECOVERING.get().start();
            return "running";
        });
        verbs.put("recovery", a -> RECOVERING.get().since(Long.parseLong(Control.argument(a, "since", "0"))));
        verbs.put("recovered", a -> RECOVERING.get().halt());
        verbs.put("close", a -> {
            CLIENT.getAndSet(null).close();
            return "closed";
        });
        Control.event(System.currentTimeMillis(), "STARTED load");
        Control.serve(verbs);
    }

    /**
     * {@code connect addresses=a:10800,b:10800 timeout=30000 aware=true throttled=3}, and the arguments of {@link Tls}. A node
     * that could not be reached so often is left alone for 30 s; with 0 it never is.
     */
    static String connect(String[] args) throws Exception {
        ClientConfiguration cfg = new ClientConfiguration()
            .setAddresses(Control.argument(args, "addresses", "127.0.0.1:10800").split(","))
            .setTimeout(Integer.parseInt(Control.argument(args, "timeout", "30000")))
            .setPartitionAwarenessEnabled(Boolean.parseBoolean(Control.argument(args, "aware", "true")))
            .setReconnectThrottlingRetries(Integer.parseInt(Control.argument(args, "throttled", "3")));
        SslContextFactory tls = Tls.factory(args);
        if (tls != null)
            cfg.setSslMode(SslMode.REQUIRED).setSslContextFactory(tls);
        IgniteClient old = CLIENT.getAndSet(Ignition.startClient(cfg));
        if (old != null)
            old.close();
        return "connected";
    }

    /** {@code create cache=c backups=1 mode=ATOMIC|TRANSACTIONAL} */
    static String create(String[] args) {
        CLIENT.get().getOrCreateCache(new ClientCacheConfiguration()
            .setName(Control.argument(args, "cache", "keys"))
            .setBackups(Integer.parseInt(Control.argument(args, "backups", "1")))
            .setAtomicityMode(CacheAtomicityMode.valueOf(Control.argument(args, "mode", "ATOMIC")))
            .setWriteSynchronizationMode(CacheWriteSynchronizationMode.FULL_SYNC));
        return "created";
    }

    /** {@code fill cache=c from=0 count=1000 bytes=100 batch=500} */
    static String fill(String[] args) {
        ClientCache<Long, byte[]> cache = cache(args);
        long from = Long.parseLong(Control.argument(args, "from", "0"));
        long end = from + Long.parseLong(Control.argument(args, "count", "1000"));
        int bytes = Integer.parseInt(Control.argument(args, "bytes", "100"));
        int size = Integer.parseInt(Control.argument(args, "batch", String.valueOf(BATCH)));

        for (long batch = from; batch < end; batch += size) {
            Map<Long, byte[]> values = new TreeMap<>();
            for (long key = batch; key < Math.min(end, batch + size); key++)
                values.put(key, Value.of(key, 1, bytes));
            cache.putAll(values);
        }
        return "filled=" + (end - from);
    }

    /** {@code verify cache=c from=0 count=1000}: how many keys are there, gone, or not what was put. */
    static String verify(String[] args) {
        ClientCache<Long, byte[]> cache = cache(args);
        long from = Long.parseLong(Control.argument(args, "from", "0"));
        long end = from + Long.parseLong(Control.argument(args, "count", "1000"));
        long found = 0;
        long lost = 0;
        long corrupt = 0;

        for (long batch = from; batch < end; batch += BATCH) {
            TreeMap<Long, byte[]> expected = new TreeMap<>();
            for (long key = batch; key < Math.min(end, batch + BATCH); key++)
                expected.put(key, null);
            Map<Long, byte[]> values = cache.getAll(expected.keySet());
            for (long key : expected.keySet()) {
                byte[] value = values.get(key);
                if (value == null)
                    lost++;
                else if (Value.version(key, value) < 1)
                    corrupt++;
                else
                    found++;
            }
        }
        return "found=" + found + " lost=" + lost + " corrupt=" + corrupt;
    }

    /** {@code big cache=c key=-1 bytes=104857600}: puts one large value, reads it back, compares every byte. */
    static String big(String[] args) {
        ClientCache<Long, byte[]> cache = cache(args);
        long key = Long.parseLong(Control.argument(args, "key", "-1"));
        byte[] value = Value.of(key, 1, Integer.parseInt(Control.argument(args, "bytes", "104857600")));
        long start = System.nanoTime();
        cache.put(key, value);
        long put = System.nanoTime();
        byte[] read = cache.get(key);
        long get = System.nanoTime();
        cache.remove(key);
        return "equal=" + Arrays.equals(value, read) + " put_ms=" + (put - start) / 1_000_000
            + " get_ms=" + (get - put) / 1_000_000;
    }

    /** {@code run cache=c threads=2 keys=200 bytes=100 from=1000000} */
    static String run(String[] args) {
        ContinuousLoad load = new ContinuousLoad(cache(args), args);
        if (!RUNNING.compareAndSet(null, load)) {
            if (!RUNNING.get().halted())
                throw new IllegalStateException("a load is running already");
            RUNNING.set(load);
        }
        load.start();
        return "running";
    }

    static String halt() throws InterruptedException {
        return RUNNING.get().halt();
    }

    private static ClientCache<Long, byte[]> cache(String[] args) {
        return CLIENT.get().cache(Control.argument(args, "cache", "keys"));
    }
}
