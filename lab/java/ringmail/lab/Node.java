package ringmail.lab;

import java.util.Arrays;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Collectors;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteState;
import org.apache.ignite.Ignition;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.configuration.ClientConnectorConfiguration;
import org.apache.ignite.configuration.DataRegionConfiguration;
import org.apache.ignite.configuration.DataStorageConfiguration;
import org.apache.ignite.configuration.IgniteConfiguration;
import org.apache.ignite.events.DiscoveryEvent;
import org.apache.ignite.events.EventType;
import org.apache.ignite.internal.GridKernalContext;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.CacheGroupContext;
import org.apache.ignite.internal.processors.cache.CacheGroupMetricsImpl;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtLocalPartition;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtPartitionState;
import org.apache.ignite.internal.processors.metric.impl.MetricUtils;
import org.apache.ignite.spi.discovery.tcp.TcpDiscoverySpi;
import org.apache.ignite.spi.discovery.tcp.ipfinder.vm.TcpDiscoveryVmIpFinder;
import org.apache.ignite.spi.metric.LongMetric;
import org.apache.ignite.spi.metric.ReadOnlyMetricRegistry;
import org.apache.ignite.ssl.SslContextFactory;

/**
 * One server node with the defaults of Ignite: what is set here is its address list, its name and the size of its data region.
 *
 * Arguments: {@code name=} {@code addresses=a,b,c} {@code host=} (empty binds every address, and any port of the range) {@code work=}
 * {@code region_mib=}, and those of {@link Tls}.
 */
public final class Node {
    private static final String REGION_MIB = "256";
    private static final long REGION_FIRST_BYTES = 32L << 20;

    private Node() {
    }

    /** Starts the node, then serves the lab's questions. */
    public static void main(String[] args) throws Exception {
        Control.reserveStdout();
        Ignition.addListener((name, state) -> {
            Control.event(System.currentTimeMillis(), "STATE " + state);
            if (state == IgniteState.STOPPED || state == IgniteState.STOPPED_ON_SEGMENTATION)
                new Thread(() -> System.exit(state == IgniteState.STOPPED ? 0 : 4)).start();
        });
        Ignite ignite;
        try {
            ignite = Ignition.start(configuration(args));
        } catch (Throwable e) {
            e.printStackTrace();
            Control.event(System.currentTimeMillis(), "START_FAILED " + rootCause(e).toString().replace('\n', ' '));
            System.exit(5);
            return;
        }
        Control.event(System.currentTimeMillis(), "STARTED " + ignite.cluster().localNode().id());
        Control.serve(Map.of(
            "view", a -> view(ignite),
            "rebalanced", a -> String.valueOf(isRebalanced((IgniteEx)ignite)),
            "moved", a -> moved((IgniteEx)ignite, Control.argument(a, "cache", "keys")),
            "stop", a -> {
                Ignition.stop(ignite.name(), true);
                return "stopped";
            }));
    }

    static IgniteConfiguration configuration(String[] args) {
        String name = Control.argument(args, "name", "n1");
        String host = Control.argument(args, "host", "");
        long regionBytes = Long.parseLong(Control.argument(args, "region_mib", REGION_MIB)) << 20;
        TcpDiscoveryVmIpFinder finder = new TcpDiscoveryVmIpFinder();
        finder.setAddresses(Arrays.asList(Control.argument(args, "addresses", "127.0.0.1").split(",")));
        TcpDiscoverySpi discovery = new TcpDiscoverySpi();
        if (!host.isEmpty())
            discovery.setLocalPortRange(0);
        discovery.setIpFinder(finder);

        IgniteConfiguration cfg = new IgniteConfiguration();
        cfg.setIgniteInstanceName(name);
        cfg.setConsistentId(name);
        if (!host.isEmpty())
            cfg.setLocalHost(host);
        cfg.setWorkDirectory(Control.argument(args, "work", null));
        cfg.setDiscoverySpi(discovery);
        cfg.setMetricsLogFrequency(0);
        cfg.setDataStorageConfiguration(new DataStorageConfiguration().setDefaultDataRegionConfiguration(
            new DataRegionConfiguration().setName("default").setMaxSize(regionBytes).setInitialSize(REGION_FIRST_BYTES)));
        SslContextFactory tls = Tls.factory(args);
        if (tls != null) {
            cfg.setSslContextFactory(tls);
            cfg.setClientConnectorConfiguration(new ClientConnectorConfiguration()
                .setSslEnabled(true).setSslClientAuth(true).setUseIgniteSslContextFactory(true));
        }
        cfg.setIncludeEventTypes(EventType.EVT_NODE_JOINED, EventType.EVT_NODE_LEFT, EventType.EVT_NODE_FAILED,
            EventType.EVT_NODE_SEGMENTED);
        cfg.setLocalEventListeners(Map.of(event -> {
            report((DiscoveryEvent)event);
            return true;
        }, new int[] {EventType.EVT_NODE_JOINED, EventType.EVT_NODE_LEFT, EventType.EVT_NODE_FAILED,
            EventType.EVT_NODE_SEGMENTED}));
        return cfg;
    }

    private static void report(DiscoveryEvent event) {
        Control.event(event.timestamp(),
            event.name() + " " + event.eventNode().consistentId() + " " + event.topologyVersion());
    }

    /** This node's own view of the ring, never what another one says. */
    private static String view(Ignite ignite) {
        TcpDiscoverySpi discovery = (TcpDiscoverySpi)ignite.configuration().getDiscoverySpi();
        UUID coordinator = discovery.getCoordinator();
        ClusterNode first = coordinator == null ? null : ignite.cluster().node(coordinator);
        String servers = ignite.cluster().forServers().nodes().stream()
            .map(node -> String.valueOf(node.consistentId())).sorted().collect(Collectors.joining(","));
        return "version=" + ignite.cluster().topologyVersion() + " coordinator="
            + (first == null ? "none" : first.consistentId()) + " servers=" + servers;
    }

    /** Whether this node has every partition that the ring as it is now wants it to have. */
    private static boolean isRebalanced(IgniteEx ignite) {
        GridKernalContext ctx = ignite.context();
        long ready = ctx.cache().context().exchange().readyAffinityVersion().topologyVersion();
        if (ready < ignite.cluster().topologyVersion())
            return false;
        for (CacheGroupContext group : ctx.cache().cacheGroups()) {
            for (GridDhtLocalPartition part : group.topology().localPartitions()) {
                if (part.state() == GridDhtPartitionState.MOVING)
                    return false;
            }
        }
        return true;
    }

    /** What this node holds of a cache, and when its share was being moved to it: -1 for what was not. */
    private static String moved(IgniteEx ignite, String cache) {
        ReadOnlyMetricRegistry metrics =
            ignite.context().metric().registry(MetricUtils.metricName(CacheGroupMetricsImpl.CACHE_GROUP_METRICS_PREFIX, cache));
        LongMetric start = metrics.findMetric("RebalancingStartTime");
        LongMetric end = metrics.findMetric("RebalancingEndTime");
        long entries = ignite.cache(cache).localSizeLong(CachePeekMode.PRIMARY, CachePeekMode.BACKUP);
        return "entries=" + entries + " start_ms=" + start.value() + " end_ms=" + end.value();
    }

    private static Throwable rootCause(Throwable e) {
        return e.getCause() == null ? e : rootCause(e.getCause());
    }
}
